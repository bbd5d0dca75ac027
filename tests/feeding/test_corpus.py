"""A split as the loader sees it: what is left out, how wide its batches are."""

import logging

import numpy as np
import pytest

from pipeline.datasets.base import Annotations, Caption, Split, Video
from pipeline.errors import DataError
from pipeline.feeding.corpus import Store, open_corpus
from pipeline.text.encoder import TextEncoder
from pipeline.text.vocab import SPECIALS, Vocabulary

WORDS = Vocabulary({word: n for n, word in enumerate([*SPECIALS, "a", "red", "circle"])})
ENCODER = TextEncoder("words", vocabulary=WORDS)


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


def test_moments_of_films_that_are_stored_whole_are_left_out_with_the_reason(caplog):
    videos = {name: Video(name) for name in ("v0", "v1@2-3.5")}
    captions = {f"{name}#0": Caption(f"{name}#0", name, "a red circle") for name in videos}
    split = Split(list(captions), list(videos))

    with caplog.at_level(logging.WARNING, logger="tvrkit"):
        corpus = open_corpus(
            Annotations(videos, captions, {"train": split}), "train", store("v0", "v1"), ENCODER
        )

    assert corpus.video_ids == ["v0"]
    assert "v1@2-3.5 (a moment of a film, and only the whole film is there" in caplog.text


def test_videos_without_features_are_left_out_and_counted(caplog):
    with caplog.at_level(logging.WARNING, logger="tvrkit"):
        corpus = open_corpus(annotations(), "train", store("v0", "v2", "v3"), ENCODER)

    assert corpus.video_ids == ["v0", "v2", "v3"]
    assert corpus.video_of.tolist() == [0, 0, 1, 1, 2, 2]
    assert "1 of 4 videos have no features and are left out with 2 captions: v1" in caplog.text


def test_split_without_any_features_is_an_error():
    with pytest.raises(DataError, match="none of the 4 videos of train has features"):
        open_corpus(annotations(), "train", store("other"), ENCODER)


def test_byte_pairs_are_padded_to_the_length_the_model_reads():
    corpus = open_corpus(annotations(), "train", store("v0"), TextEncoder("clip_bpe", 6))

    batch = corpus.texts.batch(np.array([0]))
    assert batch["text"].shape == (1, 6) and batch["text"][0, -1] == 0
    assert batch["text_mask"].tolist() == [[True] * 5 + [False]]
