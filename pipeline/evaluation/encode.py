"""From a corpus to encodings: each distinct caption once, in batches of like length; or in chunks as published."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from models.base import RetrievalModel
from pipeline.evaluation.retrieve import Batches, Encoded, encode_all
from pipeline.training.checkpoint import ModelInfo
from pipeline.training.corpus import Corpus, FeatureVideos, Sentences, Store
from pipeline.training.loader import video_batches


def encode_corpus(model: RetrievalModel, corpus: Corpus, batch_size: int = 64, chunk: int | None = None) -> Encoded:
    """Encode a split with a model that is in eval mode on its device.

    Captions of equal tokens are encoded once. `chunk`: captions and videos in file order, so many at a time (-1: all at
    once), equal captions again and again: with `pooling: padded` results depend on which items share a chunk, and the
    published ones belong to 2000 (validation) and 1000 (test).
    """
    if chunk is not None:
        size = len(corpus.caption_ids) if chunk == -1 else chunk
        rows = np.arange(len(corpus.caption_ids))
        texts = _in_order(corpus.texts, rows, size)
        return encode_all(model, texts, video_batches(corpus.videos, size), rows, len(corpus.video_ids))
    first, row_of_text = distinct(corpus.texts)
    texts = _by_length(corpus.texts, first, batch_size)
    return encode_all(model, texts, video_batches(corpus.videos, batch_size), row_of_text, len(corpus.video_ids))


def encode_bank(
    model: RetrievalModel,
    info: ModelInfo,
    texts: list[str],
    video_ids: list[str],
    store: Store,
    size: int,
    batch_size: int = 64,
) -> Encoded:
    """At most `size` of the texts and of the videos, evenly spaced, encoded: a query bank."""
    chosen = Sentences(info.encode([texts[n] for n in _evenly(len(texts), size)]))
    videos = FeatureVideos(store.read, [video_ids[n] for n in _evenly(len(video_ids), size)], store.dim)
    rows = np.arange(len(chosen.lengths))
    batches = _by_length(chosen, rows, batch_size)
    return encode_all(model, batches, video_batches(videos, batch_size), rows, len(videos))


def _evenly(n: int, wanted: int) -> np.ndarray:
    return np.linspace(0, n - 1, min(n, wanted)).round().astype(np.int64)


def distinct(texts: Sentences) -> tuple[np.ndarray, np.ndarray]:
    """The first of each set of captions with the same tokens, and the place of each caption among them, both int64.

    Equal captions computed in batches of different shape may differ in the last bit, and then neither a tie policy nor
    a reader knows why one of them won.
    """
    place: dict[bytes, int] = {}
    first, row_of_text = [], np.empty(len(texts.lengths), np.int64)
    for n in range(len(texts.lengths)):
        key = texts.batch(np.array([n]))["text"].numpy().tobytes()
        if key not in place:
            place[key] = len(place)
            first.append(n)
        row_of_text[n] = place[key]
    return np.array(first, np.int64), row_of_text


def _by_length(texts: Sentences, rows: np.ndarray, size: int) -> Batches:
    """Batches of the chosen captions, short ones first, so that little of a batch is padding."""
    order = np.argsort(texts.lengths[rows], kind="stable")
    for start in range(0, len(rows), size):
        positions = order[start : start + size]
        yield positions, texts.batch(rows[positions])


def _in_order(texts: Sentences, rows: np.ndarray, size: int) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size], texts.batch(rows[start : start + size])
