import json
from pathlib import Path

import pytest

from pipeline.core.artefact import Artefact
from pipeline.core.plan import dataset_artefact
from pipeline.core.runner import run
from pipeline.errors import DataError
from pipeline.stages.vocab import Stage


def captions(folder: Path, text: str = "v1#0 A dog.\nv1#1 the dog\nv2#0 The cat\n") -> Artefact:
    folder.mkdir(exist_ok=True)
    (folder / "c.txt").write_text(text)
    return dataset_artefact({"type": "caption_files", "root": str(folder / "c.txt")}, "annotations")


def stage(tmp_path: Path, **options: object) -> Stage:
    return Stage(Stage.Options(**options), {"annotations": captions(tmp_path)}, tmp_path / "out")


def test_vocabulary_is_written_as_published_and_counted(tmp_path: Path) -> None:
    manifest = run(stage(tmp_path, min_count=2), jobs=1)

    assert list(json.loads((tmp_path / "out" / "vocab.json").read_text())) == [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "dog",
        "the",
    ]
    assert manifest["summary"] == {
        "captions": 3,
        "words": 6,
        "distinct_words": 4,
        "vocabulary": 6,
        "unknown_share": 0.33333,
    }


def test_a_second_run_does_nothing_and_changed_captions_make_it_again(tmp_path: Path) -> None:
    run(stage(tmp_path, min_count=1), jobs=1)
    before = (tmp_path / "out" / "vocab.json").stat().st_mtime_ns
    run(stage(tmp_path, min_count=1), jobs=1)
    unchanged = (tmp_path / "out" / "vocab.json").stat().st_mtime_ns
    again = Stage(
        Stage.Options(min_count=1),
        {"annotations": captions(tmp_path, "v#0 zebra\n")},
        tmp_path / "out",
    )

    run(again, jobs=1)

    assert before == unchanged
    assert "zebra" in json.loads((tmp_path / "out" / "vocab.json").read_text())


def test_hybrid_form_writes_both_vocabularies_and_the_counter(tmp_path: Path) -> None:
    run(stage(tmp_path, min_count=2, form="hybrid_space"), jobs=1)

    texts = {p.name: p.read_text() for p in (tmp_path / "out").iterdir() if p.is_file()}
    assert list(json.loads(texts["vocab.json"])) == [
        "<pad>",
        "<start>",
        "<end>",
        "<unk>",
        "dog",
        "the",
    ]
    assert json.loads(texts["bow_vocab.json"]) == {"dog": 0, "the": 1}
    assert texts["word_vocab_counter_2.txt"] == "dog 2\nthe 2"


def test_captions_without_a_frequent_word_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no word of 3 captions occurs 9 times.*\n.*min_count"):
        run(stage(tmp_path, min_count=9), jobs=1)


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'val'"):
        run(stage(tmp_path, split="val"), jobs=1)


@pytest.mark.parametrize(
    "name, options", [("vocab", {}), ("vocab_variant", {"min_count": 2, "size": 300})]
)
def test_recorded_vocabulary_byte_for_byte(
    shared: Path, tmp_path: Path, name: str, options: dict
) -> None:
    case = shared / "golden" / "dual-encoding" / "text-stages"
    spec = {"type": "caption_files", "root": str(case / "captions.txt")}

    run(
        Stage(
            Stage.Options(**options),
            {"annotations": dataset_artefact(spec, "annotations")},
            tmp_path,
        ),
        jobs=1,
    )

    assert (tmp_path / "vocab.json").read_bytes() == (case / f"{name}.json").read_bytes()


def own(folder: Path, *texts: str) -> Artefact:
    rows = "".join(f"v{n},{text},train\n" for n, text in enumerate(texts))
    (folder / "captions.csv").write_text("video,caption,split\n" + rows)
    spec = {"type": "folder", "root": str(folder), "captions": "captions.csv"}
    return dataset_artefact(spec | {"captions_only": True}, "annotations")


def test_own_captions_keep_the_letters_of_their_language(tmp_path: Path) -> None:
    made = Stage(
        Stage.Options(min_count=1), {"annotations": own(tmp_path, "Müde", "!!!")}, tmp_path
    )

    summary = run(made, jobs=1)["summary"]

    assert "müde" in json.loads((tmp_path / "vocab.json").read_text())
    assert (summary["letters"], summary["captions_without_word"]) == ("unicode", 1)


def test_words_lost_by_the_published_rule_are_said_with_what_helps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(
        Stage(
            Stage.Options(min_count=1, letters="ascii"),
            {"annotations": own(tmp_path, "müde Katze")},
            tmp_path / "a",
        ),
        jobs=1,
    )

    assert "1 characters are dropped (ü). --letters unicode keeps" in caplog.text
    with pytest.raises(DataError, match="2 of 2 have no word left.*\n.*--letters unicode"):
        made = {"annotations": own(tmp_path, "Кошка", "猫")}
        run(Stage(Stage.Options(letters="ascii"), made, tmp_path / "b"), jobs=1)
