"""What can be searched: an index, or what `evaluate` saved of a split; both as numbered rows."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from models.base import RetrievalModel
from pipeline.core.state import read_manifest
from pipeline.datasets.parts.sources import list_folder
from pipeline.errors import DataError, TvrError
from pipeline.evaluation import results
from pipeline.search.approximate import Approximate, open_approximate
from pipeline.stores.index.reader import SUMMARY, IndexStore, Place


class Collection(Protocol):
    """Rows to be ranked: whole videos, or windows in them; rows of a video follow each other.

    summaries: a vector per row, (rows, S), or None. is_small: every row may be scored exactly.
    statistics: what fusion takes from all scores. described: what is searched, in words.
    longest: no summary is longer. approximate: what chooses among very many rows, or None.
    """

    rows: int
    n_videos: int
    is_small: bool
    statistics: Mapping[str, float]
    longest: float
    approximate: Approximate | None

    @property
    def summaries(self) -> np.ndarray | None: ...

    @property
    def videos(self) -> np.ndarray:
        """The number of each row's video, rising, (rows,)."""

    @property
    def described(self) -> str: ...

    def encodings(self, rows: np.ndarray) -> dict[str, np.ndarray]: ...

    def place(self, row: int) -> Place: ...

    def rows_of(self, video_id: str) -> range: ...

    def names(self, rows: np.ndarray) -> list[str]:
        """Return what noise is keyed by: the id of a whole video, with its seconds for a window."""

    def matching(self, pattern: str) -> np.ndarray: ...

    def ids(self) -> list[str]: ...


@dataclass(frozen=True)
class Indexed:
    """An index."""

    store: IndexStore

    @property
    def rows(self) -> int:
        return self.store.rows

    @property
    def n_videos(self) -> int:
        return self.store.n_videos

    is_small = False

    @property
    def statistics(self) -> Mapping[str, float]:
        return self.store.head.get("statistics", {})

    @property
    def longest(self) -> float:
        return self.store.head.get("longest", 1.0)

    @property
    def summaries(self) -> np.ndarray | None:
        return self.store.array(SUMMARY) if SUMMARY in self.store.names else None

    @cached_property
    def approximate(self) -> Approximate | None:
        return open_approximate(self.store.folder)

    @cached_property
    def videos(self) -> np.ndarray:
        return self.store.spans["video"]

    @property
    def described(self) -> str:
        n, aside = self.store.n_videos, self.store.head.get("set_aside", 0)
        words = f"{counted(n, 'video')}, {counted(self.rows, 'window')}"
        return words + (f"; {counted(aside, 'video')} set aside" if aside else "")

    def encodings(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return self.store.encodings(rows)

    def place(self, row: int) -> Place:
        return self.store.place(row)

    def rows_of(self, video_id: str) -> range:
        number = self.store.number_of(video_id)
        return range(0) if number is None else self.store.rows_of(number)

    def names(self, rows: np.ndarray) -> list[str]:
        found = []
        for row in rows.tolist():
            video, start, end = self.store.spans[row].tolist()
            is_whole = row == 0 or self.store.spans["video"][row - 1] != video
            video_id = self.store.video_id(video)
            found.append(video_id if is_whole else f"{video_id}\0{start:.3f}-{end:.3f}")
        return found

    def matching(self, pattern: str) -> np.ndarray:
        return self.store.matching(pattern)

    def ids(self) -> list[str]:
        return list(self.store.ids())


class Evaluated:
    """The videos of a split that `evaluate` ranked, each one row; scored as they were there."""

    is_small = True
    approximate = None

    def __init__(self, folder: Path, model: RetrievalModel):
        self.folder = folder
        self.gallery = results.read_gallery(folder)
        sides = results.read_vectors(folder)
        self.texts = {name: torch.from_numpy(rows) for name, rows in sides["text"].items()}
        self._video = {name: torch.from_numpy(rows) for name, rows in sides["video"].items()}
        self._model = model
        self.rows = self.n_videos = len(self.gallery.video_ids)
        self.statistics = self.gallery.statistics
        self._check_statistics()

    def _check_statistics(self) -> None:
        some = {name: rows[:1] for name, rows in self._video.items()}
        texts = {name: rows[:1] for name, rows in self.texts.items()}
        with torch.inference_mode():
            needed = self._model.statistics(self._model.score(texts, some))
        if needed.keys() - self.statistics.keys():
            raise DataError(
                "these results do not say what the model's fusion took from all scores",
                where=self.folder,
                fix="Run the evaluate step again: an earlier version made them.",
            )

    @cached_property
    def summaries(self) -> np.ndarray | None:
        if self._model.summaries == "none":
            return None
        with torch.inference_mode():
            return self._model.summary(self._video).float().numpy()

    @cached_property
    def longest(self) -> float:
        return float(np.linalg.norm(self.summaries, axis=1).max(initial=0))

    @cached_property
    def videos(self) -> np.ndarray:
        return np.arange(self.rows)

    @property
    def described(self) -> str:
        """The split, and how many videos of the data set are in no part of it."""
        return f"{counted(self.rows, 'video')} of split {self.gallery.split}"

    def encodings(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        chosen = torch.from_numpy(rows)
        return {name: values[chosen].numpy() for name, values in self._video.items()}

    def place(self, row: int) -> Place:
        video_id = self.gallery.video_ids[row]
        return Place(video_id, self._paths.get(video_id, ""), 0.0, None)

    def rows_of(self, video_id: str) -> range:
        if video_id not in self.gallery.video_ids:
            return range(0)
        row = self.gallery.video_ids.index(video_id)
        return range(row, row + 1)

    def names(self, rows: np.ndarray) -> list[str]:
        return [self.gallery.video_ids[row] for row in rows.tolist()]

    def matching(self, pattern: str) -> np.ndarray:
        return np.array(
            [
                fnmatch.fnmatchcase(i, pattern)
                or fnmatch.fnmatchcase(self._paths.get(i, ""), pattern)
                for i in self.gallery.video_ids
            ],
            bool,
        )

    def ids(self) -> list[str]:
        return self.gallery.video_ids

    @cached_property
    def _paths(self) -> dict[str, str]:
        """Where the videos lie, as far as the evaluate step says from which folder it read them."""
        manifest = read_manifest(self.folder.parent) or {}
        for need in ("videos", "annotations"):
            made = (manifest.get("inputs") or {}).get(need) or {}
            folder = Path(made.get("path") or "/nowhere")
            if not folder.is_dir():
                continue
            try:
                found = {video_id: str(path) for video_id, path in list_folder(folder)}
            except (TvrError, OSError):  # a folder of strangers: answers do without their paths
                continue
            if found.keys() & set(self.gallery.video_ids):
                return found
        return {}


def counted(n: int, noun: str) -> str:
    """ "1 video", "2,000 videos"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
