"""A split as the loader sees it: token ids of every caption, the row of its video, features and soft tags per video."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline import log
from pipeline.datasets.base import Annotations
from pipeline.errors import DataError
from pipeline.text.vocab import Vocabulary


class Memory(Protocol):
    """Where a batch is put: `empty(name, shape, dtype)` gives an uninitialised tensor."""

    def empty(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor: ...


class Sentences:
    """Token ids of all captions in one array: N sentences of any length >= 1."""

    def __init__(self, sentences: Sequence[Sequence[int]]):
        self.lengths = np.array([len(s) for s in sentences], dtype=np.int64)
        assert self.lengths.all(), "a sentence without tokens has nothing to encode"
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)
        self._ids = np.fromiter((i for s in sentences for i in s), np.int64, int(self.lengths.sum()))

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """text (B, L) int64 padded with 0, text_mask (B, L) bool; L is the longest of the batch."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max())
        mask = columns < lengths[:, None]
        places = np.where(mask, self._starts[rows, None] + columns, 0)
        return {"text": torch.from_numpy(np.where(mask, self._ids[places], 0)), "text_mask": torch.from_numpy(mask)}


class FeatureVideos:
    """Frame features of videos. `read(video_id)` gives (T, dim) float, at best a view of a map."""

    def __init__(self, read: Callable[[str], np.ndarray], video_ids: list[str], dim: int):
        self._read, self._ids, self._dim = read, video_ids, dim

    def __len__(self) -> int:
        return len(self._ids)

    def batch(self, rows: np.ndarray, memory: Memory) -> dict[str, Tensor]:
        """features (B, T, dim) float32 padded with 0, video_mask (B, T) bool; T is the longest of the batch."""
        views = [self._read(self._ids[row]) for row in rows]
        lengths = np.array([len(view) for view in views])
        longest = int(lengths.max())
        features = memory.empty("features", (len(rows), longest, self._dim), torch.float32)
        for place, view in zip(features.numpy(), views, strict=True):  # one copy of T * dim numbers each
            place[: len(view)] = view
            place[len(view) :] = 0
        return {"features": features, "video_mask": torch.from_numpy(np.arange(longest) < lengths[:, None])}


@dataclass(frozen=True)
class Corpus:
    """Captions and videos of one split. video_of: row of each caption's video in video_ids, int64 (N_t,).

    tags: soft labels (N_v, n_tags) float32, or None.
    """

    caption_ids: list[str]
    video_ids: list[str]
    video_of: np.ndarray
    texts: Sentences
    videos: FeatureVideos
    tags: np.ndarray | None = None


@dataclass(frozen=True)
class Store:
    """Where features are read: `read(video_id)` gives (T, dim); `holds(video_id)` says whether it is there."""

    read: Callable[[str], np.ndarray]
    holds: Callable[[str], bool]
    dim: int


def encode_texts(texts: list[str], vocabulary: Vocabulary, clean: bool = True) -> list[list[int]]:
    """Word ids of each text, at least one: a text without a listed word is one unknown word (0 where there is none)."""
    nothing = [vocabulary.unknown or 0]
    return [vocabulary.encode(text, clean) or nothing for text in texts]


def open_corpus(
    annotations: Annotations,
    split: str,
    store: Store,
    encode: Callable[[list[str]], list[list[int]]],
    labels: Callable[[list[str]], np.ndarray] | None = None,
) -> Corpus:
    """The corpus of a split. encode: texts -> token ids; labels: video ids -> soft tags (N_v, n_tags).

    Videos that the store lacks (set aside by an earlier step) are left out with their captions, and counted in a
    warning. Raises DataError if nothing is left.
    """
    part = annotations.split(split)
    video_ids = [i for i in part.video_ids if store.holds(i)]
    column = {video_id: n for n, video_id in enumerate(video_ids)}
    captions = [c for c in annotations.texts(split) if c.video_id in column]
    if not captions:
        raise DataError(
            f"none of the {len(part.video_ids):,} videos of {split} has features",
            where=f"split {split}",
            fix="Run the step that makes the tensors for this dataset; are the ids the same?",
        )
    if len(video_ids) < len(part.video_ids):
        lost = [i for i in part.video_ids if i not in column]
        log.warning(
            f"{split}: {len(lost):,} of {len(part.video_ids):,} videos have no features and are left out with "
            f"{len(part.caption_ids) - len(captions):,} captions: {', '.join(lost[:3])}{', ...' * (len(lost) > 3)}"
        )
    return Corpus(
        [c.id for c in captions],
        video_ids,
        np.array([column[c.video_id] for c in captions], dtype=np.int64),
        Sentences(encode([c.text for c in captions])),
        FeatureVideos(store.read, video_ids, store.dim),
        labels(video_ids) if labels else None,
    )
