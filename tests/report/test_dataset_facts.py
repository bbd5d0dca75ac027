"""The figures of a dataset, and their plots."""

from pathlib import Path

import pytest

from pipeline.datasets.base import Annotations, Caption, Split, Video, open_dataset
from pipeline.report import histograms
from pipeline.report.dataset_facts import SplitFacts, Spread, describe, same_as_before


@pytest.fixture
def annotations() -> Annotations:
    texts = {"a#0": "one two three", "a#1": "one two", "b#0": "one two three", "c#0": "x"}
    captions = {i: Caption(i, i[0], text) for i, text in texts.items()}
    videos = {
        "a": Video("a", end=4.0),
        "b": Video("b", start=1.0, end=3.5),
        "c": Video("c"),
        "d": Video("d"),
    }
    splits = {"train": Split(["a#0", "a#1", "b#0"], ["a", "b"]), "test": Split(["c#0"], ["c", "d"])}
    return Annotations(videos, captions, splits | {"val": splits["test"]})


def test_captions_words_and_videos_are_counted(annotations: Annotations):
    train = describe(annotations, {}, None)["train"]

    assert (train.texts, train.videos) == (3, 2)
    assert train.words == [3, 2, 3]
    assert train.captions == [2, 1]
    assert train.repeated == 2
    assert train.tokens == []


def test_durations_of_files_go_before_those_of_annotations(annotations: Annotations):
    found = describe(annotations, {"a": 9.0}, None)

    assert found["train"].seconds == [9.0, 2.5]
    assert found["test"].seconds == []


def test_what_a_limit_cuts_is_told_by_tokens_if_they_are_known(annotations: Annotations):
    by_words = describe(annotations, {}, None)["train"]
    by_tokens = describe(annotations, {}, lambda text: 10 * len(text.split()))["train"]

    assert by_words.cut(4) == 2
    assert by_tokens.cut(4) == 3
    assert by_tokens.cut(31) == 2
    assert by_tokens.to_json(31)["cut_is_known_by"] == "tokens"


def test_videos_without_caption_and_equal_splits_are_noticed(annotations: Annotations):
    found = describe(annotations, {}, None)

    assert found["test"].without_caption == 1
    assert same_as_before(annotations) == {"val": "test"}


def test_splits_with_equal_figures_but_other_videos_are_not_the_same():
    captions = {i: Caption(i, i[0], "a hand") for i in ("a#0", "b#0")}
    splits = {"train": Split(["a#0"], ["a"]), "test": Split(["b#0"], ["b"])}
    videos = {i: Video(i) for i in "ab"}

    assert same_as_before(Annotations(videos, captions, splits)) == {}


def test_a_spread_of_nothing_is_zero():
    assert Spread.of([]) == Spread(0, 0, 0, 0, 0, 0, 0)
    assert Spread.of([1, 2, 9]).median == 2


@pytest.mark.parametrize("values", [[], [3], [3, 3], [1, 2, 1000], [0.2, 0.7]])
def test_every_distribution_has_a_picture_and_the_same_one_twice(values: list):
    facts = {
        "train": SplitFacts(
            len(values), 1, words=values, tokens=values, captions=[1], seconds=values
        )
    }

    pictures = [histograms.png(facts, 32, "имя") for _ in range(2)]

    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[0] == pictures[1]


def test_activitynet_paragraphs_are_cut_as_the_spec_says(shared: Path):
    root = str(shared / "data/annotations/activitynet")
    found = describe(open_dataset({"type": "activitynet", "root": root}).load(), {}, None)

    assert found["train"].cut(64) / found["train"].texts == pytest.approx(0.22, abs=0.01)
    assert found["test"].cut(64) / found["test"].texts == pytest.approx(0.20, abs=0.01)
    assert sum(found["train"].seconds) / found["train"].texts == pytest.approx(117.3, abs=1)
