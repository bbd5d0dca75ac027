"""From a corpus to encodings: each distinct caption once, in batches of like length; or in chunks
as published.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from models.base import RetrievalModel
from models.parts.noise import keys
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.evaluation.kept import MEAN_TEXTS, MEAN_VIDEOS, KeptEncodings, KeptSide, groups
from pipeline.evaluation.retrieve import Batches, Encoded, encode_all
from pipeline.feeding.corpus import Corpus, VideoStore
from pipeline.feeding.loader import chunks, video_batches
from pipeline.processes import World
from pipeline.text.sentences import Sentences


def encode_corpus(
    model: RetrievalModel,
    corpus: Corpus,
    batch_size: int = 64,
    chunk: int | None = None,
    world: World = World(),
    kept: KeptEncodings | None = None,
) -> Encoded:
    """Encode a split with a model that is in eval mode on its device. Of several processes each
    encodes its share.

    Captions of equal tokens are encoded once. `chunk`: how many captions and videos, in file order,
    are encoded at a time (-1: all), equal captions again and again: with `pooling: padded` results
    depend on which items share a chunk, and the published ones belong to 2000 (validation) and 1000
    (test). kept: encodings of an earlier evaluation, without `chunk`; then batches are the groups
    of pipeline/evaluation/kept.py.
    """
    if kept is not None and chunk is None:
        return _encode_groups(model, corpus, batch_size, world, kept)
    videos, texts = corpus.videos, corpus.texts
    if chunk is not None:
        size = len(corpus.caption_ids) if chunk == -1 else chunk
        rows = order = row_of_text = np.arange(len(corpus.caption_ids))
    else:
        size = batch_size
        rows, row_of_text = distinct(texts)
        order = np.argsort(
            texts.lengths[rows], kind="stable"
        )  # short ones first: little of a batch is padding
    encoded = encode_all(
        model,
        _text_batches(texts, rows, order, size, _share(len(rows), size, world)),
        videos=video_batches(videos, size, _share(len(videos), size, world)),
        row_of_text=row_of_text,
        n_videos=len(videos),
        world=world,
    )
    return _known(encoded, texts, rows, corpus.video_ids)


def _encode_groups(
    model: RetrievalModel, corpus: Corpus, batch_size: int, world: World, kept: KeptEncodings
) -> Encoded:
    """As `encode_corpus`, in groups; one process alone reads those that are kept."""
    texts = corpus.texts
    rows, row_of_text = distinct(texts)
    order = np.argsort(texts.lengths[rows], kind="stable")
    text_ids = [texts.batch(rows[[n]])["text"].numpy().tobytes() for n in range(len(rows))]
    text_parts = [
        order[part.start : part.stop]
        for part in groups([text_ids[n] for n in order], MEAN_TEXTS, batch_size)
    ]
    video_parts: list[Sequence[int]] = list(groups(kept.of_video, MEAN_VIDEOS, batch_size))
    sides: tuple[KeptSide | None, KeptSide | None] = (None, None)
    if world.size == 1:
        sides = (
            kept.side("text", text_parts, text_ids),
            kept.side("video", video_parts, kept.of_video),
        )
        text_parts, video_parts = sides[0].missing, sides[1].missing
    text_share = _share(len(text_parts), 1, world)
    video_share = _share(len(video_parts), 1, world)
    encoded = encode_all(
        model,
        (
            (part, texts.batch(rows[part]))
            for part in text_parts[text_share.rank :: text_share.size]
        ),
        videos=video_batches(corpus.videos, batch_size, video_share, video_parts),
        row_of_text=row_of_text,
        n_videos=len(corpus.videos),
        world=world,
        sides=sides,
    )
    if world.size == 1:
        kept.tidy()
    return _known(encoded, texts, rows, corpus.video_ids)


def in_precision(
    kind: Literal["float32", "bfloat16"], device: torch.device
) -> AbstractContextManager:
    """Let models encode like this; what they give is float32 all the same."""
    return torch.autocast(device.type, torch.bfloat16, enabled=kind == "bfloat16")


def encode_bank(
    model: RetrievalModel,
    info: ModelInfo,
    texts: list[str],
    video_ids: list[str],
    store: VideoStore,
    size: int,
    batch_size: int = 64,
) -> Encoded:
    """At most `size` of the texts and of the videos, evenly spaced, encoded: a query bank."""
    chosen = info.text_encoder.sentences([texts[n] for n in _evenly(len(texts), size)])
    videos = store.videos([video_ids[n] for n in _evenly(len(video_ids), size)])
    rows = np.arange(len(chosen.lengths))
    batches = _text_batches(chosen, rows, np.argsort(chosen.lengths, kind="stable"), batch_size)
    encoded = encode_all(model, batches, video_batches(videos, batch_size), rows, len(videos))
    return _known(encoded, chosen, rows, [video_ids[n] for n in _evenly(len(video_ids), size)])


def _known(
    encoded: Encoded, texts: Sentences, rows: np.ndarray, video_ids: Sequence[str]
) -> Encoded:
    """With keys: of texts what the model reads, so that equal captions and typed queries are one;
    of videos the ids.
    """
    return replace(encoded, text_keys=text_keys(texts, rows), video_keys=keys(video_ids))


def text_keys(texts: Sentences, rows: np.ndarray) -> np.ndarray:
    """Return a number for what a model reads of each of the texts `rows`, uint64: the same wherever
    the text is met.
    """
    tokens = (texts.batch(np.array([n]))["text"].numpy().ravel() for n in rows)
    return keys([np.trim_zeros(ids, "b").astype("<i8").tobytes() for ids in tokens])


def _evenly(n: int, wanted: int) -> np.ndarray:
    return np.linspace(0, n - 1, min(n, wanted)).round().astype(np.int64)


def distinct(texts: Sentences) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of each set of captions with the same tokens, and the place of each caption
    among them, both int64.

    Equal captions computed in batches of different shape may differ in the last bit, and then
    neither a tie policy nor a reader knows why one of them won.
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


def _text_batches(
    texts: Sentences, rows: np.ndarray, order: np.ndarray, size: int, share: World = World()
) -> Batches:
    """Batches of the captions `rows`, taken in `order`; positions are places in `rows`. Else as
    `video_batches`.
    """
    for part in chunks(len(rows), size)[share.rank :: share.size]:
        positions = order[part.start : part.stop]
        yield positions, texts.batch(rows[positions])


def _share(n: int, size: int, world: World) -> World:
    """Who makes which batches: every process a share, or each of them all where some would have
    none.
    """
    return world if -(-n // size) >= world.size else World()
