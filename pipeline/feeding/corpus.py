"""A split as the loader sees it: token ids of every caption, the row of its video, features and
soft tags per video.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline import log
from pipeline.datasets.base import Annotations
from pipeline.errors import DataError
from pipeline.feeding.frame_choice import Samples
from pipeline.text.encoder import TextEncoder
from pipeline.text.sentences import Sentences
from pipeline.video.moment import only_whole


class Memory(Protocol):
    """Where a batch is put: `empty(name, shape, dtype)` gives an uninitialised tensor."""

    def empty(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor: ...


class Videos(Protocol):
    """Videos of a split, by row."""

    def __len__(self) -> int: ...

    def batch(
        self, rows: np.ndarray, memory: Memory, samples: Samples | None = None
    ) -> dict[str, Tensor]:
        """Return what a batch holds of the videos at `rows`. samples: what random choices are keyed
        by; None: no training.
        """


class FeatureVideos:
    """Frame features of videos. `read(video_id)` gives (T, dim) float, at best a view of a map."""

    def __init__(self, read: Callable[[str], np.ndarray], video_ids: list[str], dim: int):
        self._read, self._ids, self._dim = read, video_ids, dim

    def __len__(self) -> int:
        return len(self._ids)

    def batch(
        self, rows: np.ndarray, memory: Memory, samples: Samples | None = None
    ) -> dict[str, Tensor]:
        """features (B, T, dim) float32 padded with 0, video_mask (B, T) bool; T is the longest of
        the batch.
        """
        views = [self._read(self._ids[row]) for row in rows]
        lengths = np.array([len(view) for view in views])
        longest = int(lengths.max())
        features = memory.empty("features", (len(rows), longest, self._dim), torch.float32)
        for place, view in zip(
            features.numpy(), views, strict=True
        ):  # one copy of T * dim numbers each
            place[: len(view)] = view
            place[len(view) :] = 0
        return {
            "features": features,
            "video_mask": torch.from_numpy(np.arange(longest) < lengths[:, None]),
        }


@dataclass(frozen=True)
class Corpus:
    """Captions and videos of one split. video_of: row of each caption's video in video_ids, int64
    (N_t,).

    tags: soft labels (N_v, n_tags) float32, or None. listed: place of each video in the list of the
    split, some of which may have been left out; None: none was.
    """

    caption_ids: list[str]
    video_ids: list[str]
    video_of: np.ndarray
    texts: Sentences
    videos: Videos
    tags: np.ndarray | None = None
    listed: np.ndarray | None = None

    @property
    def places(self) -> np.ndarray:
        """Place of each video in the list of its split, int64 (N_v,)."""
        return np.arange(len(self.video_ids)) if self.listed is None else self.listed


class VideoStore(Protocol):
    """Where what a model sees of videos is read."""

    noun: str  # what a video lacks that has a fault
    where: str  # what is read, for people

    def faults(self, video_ids: list[str]) -> dict[str, str]:
        """Return why videos cannot be read, by id; nothing about those that can."""

    def videos(self, video_ids: list[str]) -> Videos:
        """Return the videos, none of which has a fault."""


@dataclass(frozen=True)
class Store:
    """Where features are read: `read(video_id)` gives (T, dim); `holds(video_id)` says whether it
    is there.
    """

    read: Callable[[str], np.ndarray]
    holds: Callable[[str], bool]
    dim: int
    where: str = "features"
    noun: ClassVar[str] = "features"

    def faults(self, video_ids: list[str]) -> dict[str, str]:
        return {i: only_whole(i, self.holds) for i in video_ids if not self.holds(i)}

    def videos(self, video_ids: list[str]) -> FeatureVideos:
        return FeatureVideos(self.read, video_ids, self.dim)


def open_corpus(
    annotations: Annotations,
    split: str,
    store: VideoStore,
    encoder: TextEncoder,
    labels: Callable[[list[str]], np.ndarray] | None = None,
) -> Corpus:
    """Return the corpus of a split. labels: video ids -> soft tags, float32 (N_v, n_tags).

    Videos that cannot be read (set aside by an earlier step, damaged) are left out with their
    captions, and counted in a warning. Raises DataError if nothing is left.
    """
    part = annotations.split(split)
    log.once(annotations.said(split))
    faults = store.faults(part.video_ids)
    video_ids = [i for i in part.video_ids if i not in faults]
    column = {video_id: n for n, video_id in enumerate(video_ids)}
    captions = [c for c in annotations.texts(split) if c.video_id in column]
    examples = ", ".join(f"{i} ({why})" if why else i for i, why in list(faults.items())[:3])
    if not captions:
        raise DataError(
            f"none of the {len(part.video_ids):,} videos of {split} has {store.noun}:"
            f" {examples or 'no captions'}",
            where=f"split {split}",
            fix="Run the step that makes the tensors for this dataset; are the ids the same?",
        )
    if faults:
        log.warning(
            f"{split}: {len(faults):,} of {len(part.video_ids):,} videos have no {store.noun} and"
            f" are left out with {len(part.caption_ids) - len(captions):,} captions:"
            f" {examples}{', ...' * (len(faults) > 3)}"
        )
    return Corpus(
        caption_ids=[c.id for c in captions],
        video_ids=video_ids,
        video_of=np.array([column[c.video_id] for c in captions], dtype=np.int64),
        texts=encoder.sentences([c.text for c in captions]),
        videos=store.videos(video_ids),
        tags=labels(video_ids) if labels else None,
        listed=np.array(
            [n for n, i in enumerate(part.video_ids) if i not in faults], dtype=np.int64
        ),
    )
