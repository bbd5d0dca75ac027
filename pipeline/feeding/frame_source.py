"""Where frames come from: a tensor cache, a frame store, or video files; all as uint8 squares of
the model's size.

A source says once which videos can be read at all (`counted`); after that a video that cannot be
read ends the run. So no video ever turns into a black one, and every epoch has the same samples.
"""

import math
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.errors import DataError, ItemError
from pipeline.stores.frame_store.reader import FrameStore
from pipeline.stores.tensor_cache.reader import TensorCache
from pipeline.video.crop import Fit, fit_square
from pipeline.video.moment import Moment, only_whole, parse_id
from pipeline.video.reader import FrameChoice, Limits, SizeRule, iterate_clip


class FrameSource(Protocol):
    """Frames of videos, read from several threads at once. size: pixels of the square. where: what
    is read.
    """

    size: int
    where: str

    def holds(self, video_id: str) -> bool:
        """Return whether the source lists the video."""

    def count(self, video_id: str) -> int:
        """Its frames, after making sure that they can be read. KeyError, DataError or ItemError if
        they cannot.
        """

    def fps(self, video_id: str) -> Fraction | None:
        """Return how many of the frames it counts show one second, or None if nobody knows. Asked
        of videos that can be read.
        """

    def read(self, video_id: str, index: np.ndarray, out: np.ndarray) -> None:
        """Put the frames at `index` (T,), rising or not, with repeats, into `out`, uint8 (T, size,
        size, 3).
        """


class CachedFrames:
    """Frames of a tensor cache: copied from the map of its file straight into the batch.

    rates: frames per second of the videos, as far as they are known.
    """

    def __init__(self, cache: TensorCache, size: int, rates: Mapping[str, Fraction]):
        self._cache, self.size, self.where = cache, size, f"tensor cache {cache.path}"
        self.fps = rates.get
        self.holds = cache.__contains__

    def count(self, video_id: str) -> int:
        return self._cache.shape(video_id)[0]

    def read(self, video_id: str, index: np.ndarray, out: np.ndarray) -> None:
        self._cache.gather([video_id], index[None], out[None])


class StoredFrames:
    """Frames of a frame store: decoded into the batch where they have its size, else resized and
    cropped.
    """

    def __init__(self, store: FrameStore, size: int, fit: Fit):
        self._store = store
        self.size = size
        self._fit = fit
        self.where = f"frame store {store.path}"
        self._scratch = (
            threading.local()
        )  # fresh memory for every clip would cost as much as decoding it

    def holds(self, video_id: str) -> bool:
        return self._part(video_id) is not None

    def count(self, video_id: str) -> int:
        stored, _, frames = self._part(video_id)
        self._store.read(stored, [0])  # compares the checksum of the whole value, and decodes
        return frames

    def fps(self, video_id: str) -> Fraction | None:
        return self._store.info(self._part(video_id)[0]).fps

    def read(self, video_id: str, index: np.ndarray, out: np.ndarray) -> None:
        video_id, first, _ = self._part(video_id)
        index = index + first
        info = self._store.info(video_id)
        if info.height == info.width == self.size:
            self._store.read(video_id, index, out)
            return
        shape = (len(index), info.height, info.width, 3)
        n = math.prod(shape)
        if getattr(self._scratch, "memory", np.empty(0)).size < n:
            self._scratch.memory = np.empty(n, np.uint8)
        images = self._store.read(video_id, index, self._scratch.memory[:n].reshape(shape))
        out[...] = fit_square(images, self.size, self._fit)

    def _part(self, video_id: str) -> tuple[str, int, int] | None:
        """Return (id in the store, first frame, frames) of a video, or of a moment of a stored
        film.
        """
        if video_id in self._store:
            return video_id, 0, self._store.info(video_id).frames
        named = parse_id(video_id)
        if named is None or named[0] not in self._store:
            return None
        film, moment = named
        times = self._store.info(film).times_ms
        if times is None:
            return None
        first = int(np.searchsorted(times, 1000 * moment.start))
        last = len(times) if moment.end is None else int(np.searchsorted(times, 1000 * moment.end))
        first = min(first, max(0, last - 1))
        return film, first, max(1, last - first)


class DecodedFiles:
    """Frames decoded from video files whenever they are asked for: for trying things out, not for
    long trainings.

    moments: of the ids that stand for a part of their file. An id that names a moment of a listed
    film (pipeline/video/moment.py) is cut from that film.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        size: int,
        fit: Fit,
        fps: float | None,
        moments: Mapping[str, Moment] | None = None,
    ):
        self._paths, self.size, self._fit = dict(paths), size, fit
        self.where = f"{len(paths):,} video files"
        self._moments = dict(moments or {})
        self._choice = FrameChoice("all") if fps is None else FrameChoice.at(fps)

    def holds(self, video_id: str) -> bool:
        return self._found(video_id) is not None

    def count(self, video_id: str) -> int:
        frames = sum(frame.repeats for frame in self._reader(video_id))
        if not frames:
            raise ItemError("no_frames", "nothing decodes")
        return frames

    def fps(self, video_id: str) -> Fraction | None:
        """As it was asked for, or None for all frames, whose rate no model asks about."""
        return None if self._choice.rule == "all" else self._choice.fps

    def read(self, video_id: str, index: np.ndarray, out: np.ndarray) -> None:
        missing, slot = set(index.tolist()), 0
        for frame in self._reader(video_id):
            shown = [n for n in missing if slot <= n < slot + frame.repeats]
            if shown:
                out[np.isin(index, shown)] = fit_square(frame.image[None], self.size, self._fit)
                missing.difference_update(shown)
            slot += frame.repeats
            if not missing:
                return
        raise ItemError(
            "missing", f"frame {max(missing)} was asked for, but only {slot:,} frames decode"
        )

    def _reader(self, video_id: str) -> object:
        size = SizeRule("short", self.size) if self._fit == "resize_crop" else None
        path, moment = self._found(video_id)
        return iterate_clip(path, self._choice, size, Limits(), moment)

    def _found(self, video_id: str) -> tuple[Path, Moment | None] | None:
        if video_id in self._paths:
            return self._paths[video_id], self._moments.get(video_id)
        named = parse_id(video_id)
        return (self._paths[named[0]], named[1]) if named and named[0] in self._paths else None


def counted(source: FrameSource, video_ids: list[str], threads: int) -> dict[str, int | str]:
    """For each video the number of its frames, or why they cannot be read."""

    def count(video_id: str) -> int | str:
        if not source.holds(video_id):
            return only_whole(video_id, source.holds) or "not there"
        try:
            return source.count(video_id)
        except (DataError, ItemError, KeyError, OSError) as error:
            return " ".join(str(error).split("\n")[0].split())

    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(video_ids, pool.map(count, video_ids), strict=True))
