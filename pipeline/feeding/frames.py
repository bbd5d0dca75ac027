"""The videos of a split as frames: chosen by the recipe, read by a few threads straight into the
memory of a batch.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline import log
from pipeline.errors import DataError, ItemError
from pipeline.feeding.corpus import Memory
from pipeline.feeding.frame_choice import Samples, choose, stride
from pipeline.feeding.frame_source import FrameSource, counted
from pipeline.recipes.options import FrameOptions

_OFF = 0.1  # a rate that is further off than this share is another one
_MOST_THREADS = 8  # beyond that copying is bound by memory


class FrameReader:
    """A frame source as a `VideoStore`: m frames of each video by the rules of a recipe.

    threads: that read (default: one per core, at most 8). seed: of shuffled orders outside
    training.
    """

    noun = "readable frames"
    dim = 0

    def __init__(
        self,
        source: FrameSource,
        m: int,
        options: FrameOptions,
        *,
        seed: int = 0,
        threads: int | None = None,
    ):
        self.source = source
        self.m = m
        self.options = options
        self.seed = seed
        self.threads = threads or min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        self.where = source.where
        self._counts: dict[str, int | str] = {}
        self._strides: dict[str, int] = {}
        self._said: set[str] = set()

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, "frames")

    def faults(self, video_ids: list[str]) -> dict[str, str]:
        """Every video that is asked about for the first time is tried."""
        new = [i for i in video_ids if i not in self._counts]
        self._counts |= counted(self.source, new, self.threads)
        self._find_strides([i for i in new if not isinstance(self._counts[i], str)])
        return {i: n for i in video_ids if isinstance(n := self._counts[i], str)}

    def videos(self, video_ids: list[str]) -> "FrameVideos":
        counts = np.array([self._counts[i] for i in video_ids], np.int64)
        strides = np.array([self._strides[i] for i in video_ids], np.int64)
        return FrameVideos(self, video_ids, counts, self.options.every * strides)

    def _find_strides(self, video_ids: list[str]) -> None:
        """Every how many frames the model reads of each video. Warns once of each kind of source
        that cannot give the model's rate.
        """
        fps = self.options.fps
        for video_id in video_ids:
            held = self.source.fps(video_id) if fps else None
            step = stride(held, fps)
            self._strides[video_id] = step
            if not fps or (held and abs(held / step / fps - 1) < _OFF):
                continue
            rate = f"{float(held):.4g} fps" if held else "frames at an unknown rate"
            if rate in self._said:
                continue
            self._said.add(rate)
            read = f", {float(held / step):.4g} of them are read" if held else ", all are read"
            log.warning(
                f"frames: {self.where} holds {rate} ({video_id}){read}, but the model was made"
                f" for {fps:g} fps. Scores may differ from its own; give frames or videos of at"
                f" least {fps:g} fps."
            )


class FrameVideos:
    """Frames of videos. counts: how many each one has; every: choose among every n-th of them, both
    int64 (N_v,).
    """

    def __init__(
        self, reader: FrameReader, video_ids: list[str], counts: np.ndarray, every: np.ndarray
    ):
        self._reader, self._ids, self._counts, self._every = reader, video_ids, counts, every

    def __len__(self) -> int:
        return len(self._ids)

    def batch(
        self, rows: np.ndarray, memory: Memory, samples: Samples | None = None
    ) -> dict[str, Tensor]:
        """frames (B, T, S, S, 3) uint8, video_mask (B, T) bool. A short video repeats its last
        frame, masked.

        Raises DataError naming a video that could be read before and now cannot.
        """
        reader = self._reader
        index, real = self._choose(rows, samples)
        size = reader.source.size
        frames = memory.empty("frames", (*index.shape, size, size, 3), torch.uint8)
        slots = frames.numpy()
        parts = np.array_split(np.arange(len(rows)), min(reader.threads, len(rows)))
        list(reader.pool.map(lambda part: self._fill(rows, index, slots, part), parts))
        return {
            "frames": frames,
            "video_mask": torch.from_numpy(np.arange(reader.m) < real[:, None]),
        }

    def _choose(self, rows: np.ndarray, samples: Samples | None) -> tuple[np.ndarray, np.ndarray]:
        reader, options = self._reader, self._reader.options
        if samples is None:
            fixed = Samples(reader.seed, 0, rows)
            return choose(
                self._counts[rows],
                reader.m,
                mode=options.evaluation,
                samples=fixed,
                every=self._every[rows],
                order=options.evaluation_order,
            )
        return choose(
            self._counts[rows],
            reader.m,
            mode=options.train,
            samples=samples,
            every=self._every[rows],
            order=options.train_order,
        )

    def _fill(
        self, rows: np.ndarray, index: np.ndarray, slots: np.ndarray, part: np.ndarray
    ) -> None:
        for b in part:  # one call per video: reading it takes a hundred times as long
            video_id = self._ids[rows[b]]
            try:
                self._reader.source.read(video_id, index[b], slots[b])
            except (ItemError, KeyError, OSError) as error:
                raise DataError(
                    f"{video_id}: its frames could be read before and now cannot: {error}",
                    where="frames",
                    fix=(
                        "Has the store changed? Run the step that makes it again, then the same"
                        " command."
                    ),
                ) from error
