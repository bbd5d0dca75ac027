"""A split as the loader sees it: what is left out, what captions become."""

import logging

import numpy as np
import pytest

from models.base import Inputs
from pipeline.datasets.base import Annotations, Caption, Split, Video
from pipeline.errors import ConfigError, DataError
from pipeline.feeding.corpus import Sentences, Store, encode_texts, open_corpus, text_encoder
from pipeline.text.vocab import SPECIALS, Vocabulary

WORDS = Vocabulary({word: n for n, word in enumerate([*SPECIALS, "a", "red", "circle"])})


def annotations(n: int = 4) -> Annotations:
    captions = {
        f"v{i}#{k}": Caption(f"v{i}#{k}", f"v{i}", "a red circle")
        for i in range(n)
        for k in range(2)
    }
    videos = {f"v{i}": Video(f"v{i}") for i in range(n)}
    return Annotations(videos, captions, {"train": Split(list(captions), list(videos))})


def store(*held: str) -> Store:
    return Store(lambda video_id: np.ones((2, 3), np.float32), held.__contains__, 3)


def encode(texts: list[str]) -> list[list[int]]:
    return encode_texts(texts, WORDS)


def test_videos_without_features_are_left_out_and_counted(caplog):
    with caplog.at_level(logging.WARNING, logger="tvrkit"):
        corpus = open_corpus(annotations(), "train", store("v0", "v2", "v3"), encode)

    assert corpus.video_ids == ["v0", "v2", "v3"]
    assert corpus.video_of.tolist() == [0, 0, 1, 1, 2, 2]
    assert "1 of 4 videos have no features and are left out with 2 captions: v1" in caplog.text


def test_split_without_any_features_is_an_error():
    with pytest.raises(DataError, match="none of the 4 videos of train has features"):
        open_corpus(annotations(), "train", store("other"), encode)


@pytest.mark.parametrize(("text", "clean", "expected"), [
    ("a RED circle!", True, [4, 5, 6]),
    ("a RED circle!", False, [4, 3, 3]),
    ("zebra", True, [3]),
    ("...", True, [3]),
])  # fmt: skip
def test_caption_becomes_word_ids_and_never_none(text, clean, expected):
    assert encode_texts([text], WORDS, clean) == [expected]


def test_sentences_are_padded_in_the_order_asked():
    batch = Sentences([[4, 5], [6], [4, 5, 6]]).batch(np.array([2, 1, 2]))

    assert batch["text"].tolist() == [[4, 5, 6], [6, 0, 0], [4, 5, 6]]
    assert batch["text_mask"].sum(1).tolist() == [3, 1, 3]


CLIP = Inputs(text="clip_bpe", video="frames", tokens=6)


@pytest.mark.parametrize(("text", "expected"), [
    ("", [49406, 49407]),
    ("!", [49406, 256, 49407]),
    ("a red circle " * 200, [49406, 320, 736, 7117, 320, 49407]),
])  # fmt: skip
def test_caption_becomes_byte_pairs_between_start_and_end_however_long_it_is(text, expected):
    assert text_encoder(CLIP, None)([text]) == [expected]


def test_byte_pairs_are_padded_to_the_length_the_model_reads():
    corpus = open_corpus(annotations(), "train", store("v0"), text_encoder(CLIP, None), width=6)

    batch = corpus.texts.batch(np.array([0]))
    assert batch["text"].shape == (1, 6) and batch["text"][0, -1] == 0
    assert batch["text_mask"].tolist() == [[True] * 5 + [False]]


def test_model_of_words_without_vocabulary_is_a_mistake():
    with pytest.raises(ConfigError, match="reads words") as caught:
        text_encoder(Inputs(text="words", video="features"), None)

    assert "vocab" in caught.value.fix


def test_a_caption_of_500_words_keeps_its_end_token_and_is_told_of(caplog):
    encode = text_encoder(Inputs("clip_bpe", "frames", tokens=12), None)

    with caplog.at_level(logging.WARNING, logger="tvrkit"):
        short, long = encode(["a red circle", "word " * 500])

    assert (len(short), len(long), long[-1]) == (5, 12, short[-1])
    assert (
        "1 of 2 texts have more tokens than the 12 that the model reads (at most 502)"
        in caplog.text
    )
