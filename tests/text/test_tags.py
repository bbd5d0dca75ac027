import pytest

from pipeline.datasets.base import Caption
from pipeline.text import morphy, tagger
from pipeline.text.perceptron import Perceptron
from pipeline.text.tags import Reader

KNOWN = {
    "two": "CD",
    "dogs": "NNS",
    "are": "VBP",
    "happily": "RB",
    "running": "VBG",
    "big": "JJ",
    "can": "MD",
    "not": "RB",
}


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(Perceptron({"bias": {"NN": 1.0}}, KNOWN, {*KNOWN.values(), "NN"}), morphy.load())


def test_nouns_verbs_and_adjectives_are_kept_as_lemmas_without_stop_words(reader: Reader) -> None:
    assert reader.lemmas("Two BIG dogs are happily running.") == ["big", "dog", "run"]


def test_tokens_tell_why_a_word_was_dropped(reader: Reader) -> None:
    found = [(t.text, t.tag, t.lemma, t.kept) for t in reader.tokens("dogs are happily")]

    assert found == [
        ("dogs", "NNS", "dog", True),
        ("are", "VBP", "be", False),
        ("happily", "RB", None, False),
    ]


def test_lemmas_are_what_tokens_keep(reader: Reader) -> None:
    text = "Two dogs cannot eat cookies; the dogs' men are running, isn't it"

    assert reader.lemmas(text) == [token.lemma for token in reader.tokens(text) if token.kept]


def test_counts_are_per_video_and_in_total_in_order_of_appearance(reader: Reader) -> None:
    texts = [("b", "big dog dog"), ("a", "cat"), ("b", "dog table"), ("c", "...")]
    captions = [Caption(f"{v}#{n}", v, text) for n, (v, text) in enumerate(texts)]

    counts = reader.count(captions)

    assert list(counts.total.items()) == [("big", 1), ("dog", 3), ("cat", 1), ("table", 1)]
    assert counts.videos == {"b": {"big": 1, "dog": 3, "table": 1}, "a": {"cat": 1}, "c": {}}


def test_shipped_tagger_finds_the_tags_of_plain_captions() -> None:
    shipped = Reader(tagger.find("offline").load(), morphy.load())

    assert shipped.lemmas("A red circle is moving quickly to the left") == [
        "red",
        "circle",
        "move",
        "left",
    ]
