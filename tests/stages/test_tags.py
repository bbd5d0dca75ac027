from pathlib import Path

import pytest

from pipeline.core.plan import dataset_artefact
from pipeline.core.runner import run
from pipeline.errors import DataError
from pipeline.stages.tags import Stage

CAPTIONS = "v1#0 A red circle moves\nv1#1 the circle is red\nv2#0 A blue square moves.\nv3#0 The.\n"


@pytest.fixture(autouse=True)
def no_nltk_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def stage(tmp_path: Path, **options: object) -> Stage:
    (tmp_path / "c.txt").write_text(CAPTIONS)
    annotations = dataset_artefact(
        {"type": "caption_files", "root": str(tmp_path / "c.txt")}, "annotations"
    )
    return Stage(Stage.Options(**options), {"annotations": annotations}, tmp_path / "out")


def recorded(shared: Path, out: Path, **options: object) -> Stage:
    spec = {
        "type": "caption_files",
        "root": str(shared / "golden/dual-encoding/text-stages/captions.txt"),
    }
    options |= {"nltk_data": shared / "data" / "nltk"}
    return Stage(
        Stage.Options(**options), {"annotations": dataset_artefact(spec, "annotations")}, out
    )


def test_tags_of_every_video_are_written_as_published(tmp_path: Path) -> None:
    run(stage(tmp_path, vocab_min_count=2, min_count=1), jobs=1)

    tags = (tmp_path / "out" / "video_tag.txt").read_text()
    assert tags == "v1\t{'red': 2, 'circle': 2, 'move': 1}\nv2\t{'move': 1}\nv3\t{}\n"
    assert (
        tmp_path / "out" / "tag_vocab.json"
    ).read_text() == '{\n  "red": 0,\n  "circle": 1,\n  "move": 2\n}'


def test_the_manifest_says_which_tagger_lemmatizer_and_stop_words_made_them(tmp_path: Path) -> None:
    summary = run(stage(tmp_path, vocab_min_count=1), jobs=1)["summary"]

    assert {k: summary[k] for k in ("captions", "videos", "tags", "videos_without_tags")} == {
        "captions": 4,
        "videos": 3,
        "tags": 5,
        "videos_without_tags": 2,
    }
    assert summary["tagger"].startswith("offline captions-1 (sha256 ")
    assert summary["lemmatizer"].startswith("morphy as in NLTK 3.8, WordNet 3.0 (sha256 ")
    assert summary["stopwords"].startswith("stop words english-179 (sha256 ")


def test_nltk_data_that_appear_later_make_the_tags_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = run(stage(tmp_path, vocab_min_count=1), jobs=1)["summary"]
    name = "averaged_perceptron_tagger_eng"
    data = tmp_path / "taggers" / name
    data.mkdir(parents=True)
    for part, value in (
        ("weights", '{"bias": {"NN": 1}}'),
        ("tagdict", "{}"),
        ("classes", '["NN"]'),
    ):
        (data / f"{name}.{part}.json").write_text(value)
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))

    summary = run(stage(tmp_path, vocab_min_count=1), jobs=1)["summary"]

    assert summary["tagger"] != offline["tagger"]
    assert summary["tagger"].startswith("NLTK averaged perceptron (sha256 ")


def test_hybrid_form_writes_its_own_files(tmp_path: Path) -> None:
    run(stage(tmp_path, form="hybrid_space", size=2), jobs=1)

    out = tmp_path / "out"
    assert (out / "video_label_th_1.txt").read_text() == "v1\tred:2 circle:2 \nv2\t\nv3\t\n"
    assert (out / "video_label_th_1" / "tag_vocab_2.json").read_text() == '["red", "circle"]'


def test_captions_without_a_frequent_tag_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tag of 4 captions occurs often enough.*\n.*Lower"):
        run(stage(tmp_path), jobs=1)


@pytest.mark.parametrize(
    "suffix, options", [("", {}), ("_variant", {"size": 64, "vocab_min_count": 3, "min_count": 1})]
)
def test_recorded_tags_byte_for_byte(
    shared: Path, tmp_path: Path, suffix: str, options: dict
) -> None:
    case = shared / "golden" / "dual-encoding" / "text-stages"

    run(recorded(shared, tmp_path, **options), jobs=1)

    for name in ("tag_vocab.json", "video_tag.txt"):
        expected = case / name.replace(".", f"{suffix}.")
        assert (tmp_path / name).read_bytes() == expected.read_bytes()
