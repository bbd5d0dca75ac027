"""A split as the loader sees it: what is left out, what captions become."""

import logging

import numpy as np
import pytest

from pipeline.datasets.base import Annotations, Caption, Split, Video
from pipeline.errors import DataError
from pipeline.text.vocab import SPECIALS, Vocabulary
from pipeline.training.corpus import Sentences, Store, encode_texts, open_corpus

WORDS = Vocabulary({word: n for n, word in enumerate([*SPECIALS, "a", "red", "circle"])})


def annotations(n: int = 4) -> Annotations:
    captions = {f"v{i}#{k}": Caption(f"v{i}#{k}", f"v{i}", "a red circle") for i in range(n) for k in range(2)}
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
