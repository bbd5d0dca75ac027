"""From captions and typed words to what a model reads."""

import logging

import pytest

from pipeline.errors import ConfigError
from pipeline.text.encoder import TextEncoder
from pipeline.text.vocab import SPECIALS, Vocabulary

WORDS = Vocabulary({word: n for n, word in enumerate([*SPECIALS, "a", "red", "circle"])})


@pytest.mark.parametrize(("text", "clean", "expected"), [
    ("a RED circle!", True, [4, 5, 6]),
    ("a RED circle!", False, [4, 3, 3]),
    ("zebra", True, [3]),
    ("...", True, [3]),
])  # fmt: skip
def test_caption_becomes_word_ids_and_never_none(text, clean, expected):
    assert TextEncoder("words", vocabulary=WORDS, clean=clean).ids([text]) == [expected]


@pytest.mark.parametrize(("text", "expected"), [
    ("", [49406, 49407]),
    ("!", [49406, 256, 49407]),
    ("a red circle " * 200, [49406, 320, 736, 7117, 320, 49407]),
])  # fmt: skip
def test_caption_becomes_byte_pairs_between_start_and_end_however_long_it_is(text, expected):
    assert TextEncoder("clip_bpe", 6).ids([text]) == [expected]


def test_model_of_words_without_vocabulary_is_a_mistake():
    with pytest.raises(ConfigError, match="reads words") as caught:
        TextEncoder("words")

    assert "vocab" in caught.value.fix


def test_a_caption_of_500_words_keeps_its_end_token_and_is_told_of(caplog):
    encoder = TextEncoder("clip_bpe", 12)

    with caplog.at_level(logging.WARNING, logger="tvrkit"):
        short, long = encoder.ids(["a red circle", "word " * 500])

    assert (len(short), len(long), long[-1]) == (5, 12, short[-1])
    assert (
        "1 of 2 texts have more tokens than the 12 that the model reads (at most 502)"
        in caplog.text
    )


def test_a_batch_of_texts_is_padded_and_masked():
    batch = TextEncoder("words", vocabulary=WORDS).encode(["a red circle", "red"])

    assert batch["text"].tolist() == [[4, 5, 6], [5, 0, 0]]
    assert batch["text_mask"].tolist() == [[True, True, True], [True, False, False]]


def test_unknown_words_of_a_query_are_named():
    assert TextEncoder("words", vocabulary=WORDS).unknown_words("A red zebra") == ["zebra"]


def test_byte_pairs_spell_any_word():
    assert TextEncoder("clip_bpe", 6).unknown_words("xqzzt") == []


def test_a_query_of_unknown_words_alone_is_refused_with_a_near_word():
    with pytest.raises(ConfigError, match="none of its words") as caught:
        TextEncoder("words", vocabulary=WORDS).unknown_words("circel")

    assert "Did you mean: circle?" in caught.value.fix


def test_captions_of_another_corpus_are_told_from_their_own():
    encoder = TextEncoder("words", vocabulary=WORDS)

    assert encoder.mostly_unknown(["a red circle"]) == ""
    assert "67% of the words of 1 captions" in encoder.mostly_unknown(["a zebra runs"])
