import json
from pathlib import Path

import pytest

from pipeline.text import tagger
from pipeline.text.perceptron import Perceptron, context_words, features
from pipeline.text.words import tokens


def test_known_words_need_no_weights_and_context_decides_the_rest() -> None:
    weights = {"i-1 word a": {"NN": 1.0}, "i-1 word they": {"VBP": 1.0}}
    small = Perceptron(weights, {"a": "DT", "they": "PRP"}, ["DT", "NN", "PRP", "VBP"])

    assert small.tag(["they", "walk"]) == ["PRP", "VBP"]
    assert small.tag(["a", "walk"]) == ["DT", "NN"]


def test_a_tie_goes_to_the_label_that_sorts_last() -> None:
    small = Perceptron({"bias": {"JJ": 0.5, "NN": 0.5}}, {}, ["JJ", "NN", "DT"])

    assert small.tag(["thing"]) == ["NN"]


def test_earlier_tags_are_features() -> None:
    small = Perceptron(
        {"i tag+i-2 tag NN DT": {"VBZ": 1.0}}, {"a": "DT", "man": "NN"}, ["VBZ", "AA"]
    )

    assert small.tag(["a", "man", "runs"])[-1] == "VBZ"


def test_normal_forms_of_numbers_and_hyphens() -> None:
    assert context_words(["1999", "3rd", "T-shirt", "-x", "Dog"])[2:-2] == [
        "!YEAR",
        "!DIGITS",
        "!HYPHEN",
        "-x",
        "dog",
    ]


def test_features_look_two_words_to_either_side() -> None:
    names = features("runs", "NN", "DT", "the", "man", "runs", "very", "fast")

    assert len(names) == len(set(names)) == 14
    assert {
        "i-2 word the",
        "i-1 suffix man",
        "i+1 suffix ery",
        "i+2 word fast",
        "i suffix uns",
    } <= set(names)


def test_a_word_without_any_known_feature_gets_the_last_label() -> None:
    assert Perceptron({"i word x": {"NN": 1.0}}, {}, ["DT", "NN"]).tag(["y"]) == ["NN"]


def test_no_words_no_tags() -> None:
    assert Perceptron({}, {}, ["NN"]).tag([]) == []


@pytest.mark.parametrize(
    "weights, labels",
    [({"bias": {"XX": 1.0}}, ["NN"]), ({}, []), ({"bias": {"NN": float("nan")}}, ["NN"])],
)
def test_weights_that_do_not_fit_are_refused(weights: dict, labels: list[str]) -> None:
    with pytest.raises(ValueError):
        Perceptron(weights, {}, labels)


def test_tags_equal_nltks_own_with_nltks_data(shared: Path) -> None:
    from nltk.tag.perceptron import PerceptronTagger

    files = tagger.find("nltk", shared / "data" / "nltk").files
    theirs, ours = (
        PerceptronTagger(load=False),
        tagger.find("nltk", shared / "data" / "nltk").load(),
    )
    theirs.model.weights, theirs.tagdict, theirs.model.classes = (
        json.loads(path.read_bytes()) for path in files
    )
    videos = json.loads((shared / "data/annotations/activitynet/val_1.json").read_text()).values()
    captions = [tokens(sentence) for video in videos for sentence in video["sentences"]][:600]

    assert [ours.tag(words) for words in captions] == [
        [tag for _, tag in theirs.tag(words)] for words in captions
    ]
