import json
import pickle
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.text import tagger

WEIGHTS, KNOWN, LABELS = {"bias": {"NN": 1.0}}, {"the": "DT"}, ["DT", "NN"]
NAME = "averaged_perceptron_tagger_eng"


@pytest.fixture(autouse=True)
def no_nltk_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def nltk_data(folder: Path, weights: object = WEIGHTS) -> Path:
    data = folder / "taggers" / NAME
    data.mkdir(parents=True)
    for part, value in (("weights", weights), ("tagdict", KNOWN), ("classes", LABELS)):
        (data / f"{NAME}.{part}.json").write_text(json.dumps(value))
    return folder


def test_without_nltk_data_the_shipped_tagger_is_used_and_named() -> None:
    source = tagger.find()

    assert source.name == "offline"
    assert source.version.startswith("offline captions-1 (sha256 ")


def test_nltk_data_of_the_environment_are_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NLTK_DATA", f"{tmp_path / 'none'}:{nltk_data(tmp_path / 'data')}")

    source = tagger.find()

    assert source.name == "nltk"
    assert source.version.startswith("NLTK averaged perceptron (sha256 ")
    assert source.load().tag(["the", "dog"]) == ["DT", "NN"]


def test_offline_ignores_nltk_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLTK_DATA", str(nltk_data(tmp_path)))

    assert tagger.find("offline").name == "offline"


def test_other_data_have_another_version(tmp_path: Path) -> None:
    a = tagger.find("nltk", nltk_data(tmp_path / "a"))
    b = tagger.find("nltk", nltk_data(tmp_path / "b", {"bias": {"NN": 2.0}}))

    assert a.version != b.version


def test_the_pickle_of_older_nltk_is_read_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "taggers" / "averaged_perceptron_tagger" / "averaged_perceptron_tagger.pickle"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps((WEIGHTS, KNOWN, set(LABELS)), protocol=2))

    assert tagger.find("auto", tmp_path).load().tag(["the", "dog"]) == ["DT", "NN"]


@pytest.mark.parametrize("choice", ["nltk", "auto"])
def test_data_that_were_asked_for_must_be_there(tmp_path: Path, choice: str) -> None:
    with pytest.raises(DataError, match="NLTK's tagger is not there.*\n.*Nothing is downloaded"):
        tagger.find(choice, tmp_path)


@pytest.mark.parametrize(
    "weights", [[], {"bias": 3}, {"bias": {"XX": 1}}, {"bias": {"NN": "x"}}, "text"]
)
def test_damaged_data_are_refused_with_what_to_do(tmp_path: Path, weights: object) -> None:
    source = tagger.find("nltk", nltk_data(tmp_path, weights))

    with pytest.raises(DataError, match="holds no tagger.*\n.*offline"):
        source.load()


def test_data_cut_short_are_refused(tmp_path: Path) -> None:
    folder = nltk_data(tmp_path)
    (folder / "taggers" / NAME / f"{NAME}.weights.json").write_text('{"bias": {"NN"')

    with pytest.raises(DataError, match="weights.json: cannot be read"):
        tagger.find("nltk", folder).load()


def test_shipped_tagger_knows_captions() -> None:
    words = "a young man is riding a brown horse and walks away".split()

    tags = tagger.find("offline").load().tag(words)

    assert "".join(tag[0] for tag in tags) == "DJNVVDJNCVR"


def test_shipped_tagger_agrees_with_nltks_on_captions_it_never_saw(shared: Path) -> None:
    from pipeline.text.words import tokens

    videos = json.loads((shared / "data/annotations/activitynet/val_1.json").read_text()).values()
    captions = [tokens(sentence) for video in videos for sentence in video["sentences"]][:2000]
    ours, theirs = (
        tagger.find("offline").load(),
        tagger.find("nltk", shared / "data" / "nltk").load(),
    )
    letters = [[tag[0] for words in captions for tag in by.tag(words)] for by in (ours, theirs)]

    assert sum(a == b for a, b in zip(*letters, strict=True)) / len(letters[0]) > 0.975
