"""Batches: which captions, in which order, assembled ahead of the step by a background thread.

The order is a function of (seed, epoch) and a batch one of its position alone: a run that starts at
batch k of an epoch sees exactly what an uninterrupted one sees there, whatever the number of
processes that share the batch.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.feeding.corpus import Corpus, Videos
from pipeline.feeding.frame_choice import Samples
from pipeline.processes import World

_SLOTS = 3  # one in use, one ready, one being filled


@dataclass(frozen=True)
class Batch:
    """`tensors` as models/base.py says. They lie in memory that is reused: valid until the next
    batch is asked for.
    """

    tensors: dict[str, Tensor]
    video_ids: list[str]

    def to(self, device: torch.device) -> dict[str, Tensor]:
        """Return the tensors on a device (themselves where they are there already)."""
        return {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}


class Slot:
    """Memory for one batch, kept from batch to batch: fresh memory costs more than filling it (page
    faults).
    """

    def __init__(self, pinned: bool = False):
        self._pinned = pinned
        self._buffers: dict[str, Tensor] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised contiguous tensor in this slot's memory; the last one of that
        name is overwritten.
        """
        n = int(np.prod(shape))
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < n or buffer.dtype != dtype:
            buffer = self._buffers[name] = torch.empty(n, dtype=dtype, pin_memory=self._pinned)
        return buffer[:n].view(shape)


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return a permutation of range(n), int64, the same for the same (seed, epoch)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(
        n
    )


def spread_videos(order: np.ndarray, video_of: np.ndarray, batch_size: int) -> np.ndarray:
    """`order` changed so that no batch has a video twice, by exchanging with later captions; the
    end may keep some.
    """
    order, videos = order.tolist(), video_of.tolist()
    for start in range(0, len(order), batch_size):
        seen: set[int] = set()
        for i in range(start, min(start + batch_size, len(order))):
            j = next((j for j in range(i, len(order)) if videos[order[j]] not in seen), i)
            order[i], order[j] = order[j], order[i]
            seen.add(videos[order[i]])
    return np.array(order, dtype=np.int64)


def pair_order(video_of: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return an order of all captions, int64, in which captions of the videos 2k and 2k + 1 stand
    next to each other.

    video_of: number of each caption's video. In rounds: each takes one caption of every video, pair
    by pair, so that a video hardly comes twice in a batch.
    """
    order = epoch_order(len(video_of), seed, epoch)
    videos = video_of[order]
    by_video = np.argsort(videos, kind="stable")
    turn = np.empty(len(order), np.int64)  # ordinal of each caption among its video's captions
    starts = np.searchsorted(videos[by_video], videos[by_video])
    turn[by_video] = np.arange(len(order)) - starts
    n_pairs = int(video_of.max()) // 2 + 1
    rank = epoch_order(n_pairs * (int(turn.max()) + 1), seed, epoch).reshape(
        -1, n_pairs
    )  # of each pair in each turn
    return order[np.lexsort((videos, rank[turn, videos // 2], turn))]


class TrainBatches:
    """The batches of every epoch over a corpus; this rank's share of each.

    batch_size: captions per batch over all ranks. The last batch of an epoch is smaller, or left
    out with drop_last and when it would give a rank fewer than two captions (batch statistics need
    two). Up to size - 1 captions of it are left out so that every rank has equally many.
    """

    def __init__(
        self,
        corpus: Corpus,
        batch_size: int,
        *,
        seed: int,
        drop_last: bool,
        distinct_videos: bool = False,
        pairs_together: bool = False,
        world: World = World(),
        pinned: bool = False,
    ):
        n, size = len(corpus.caption_ids), world.size
        if batch_size % size:
            raise ConfigError(
                f"a global batch of {batch_size} cannot be shared by {size} processes",
                where="train.batch_size",
                fix=f"Use {batch_size // size * size or size}, or another number of processes.",
            )
        self.corpus, self.batch_size = corpus, batch_size
        self._seed = seed
        self._distinct = distinct_videos
        self._pairs = pairs_together
        self._world = world
        rest = n % batch_size // size
        self._count = n // batch_size + (not drop_last and rest >= 2)
        if not self._count:
            raise ConfigError(
                f"{n:,} training captions do not fill one batch of {batch_size}",
                where="train.batch_size",
                fix="Lower it, or set train.drop_last: false in the recipe.",
            )
        self._slots = [Slot(pinned) for _ in range(_SLOTS)]

    def __len__(self) -> int:
        """Batches per epoch."""
        return self._count

    @property
    def smallest(self) -> int:
        """Captions of the smallest batch, over all ranks."""
        n, size = len(self.corpus.caption_ids), self._world.size
        return min(self.batch_size, (n - (self._count - 1) * self.batch_size) // size * size)

    def rows(self, epoch: int) -> list[np.ndarray]:
        """Return the captions (rows of the corpus) of this rank in each batch of an epoch."""
        order = epoch_order(len(self.corpus.caption_ids), self._seed, epoch)
        if self._pairs:
            order = pair_order(self.corpus.places[self.corpus.video_of], self._seed, epoch)
        if self._distinct:
            order = spread_videos(order, self.corpus.video_of, self.batch_size)
        shares = []
        for start in range(0, self._count * self.batch_size, self.batch_size):
            whole = order[start : start + self.batch_size]
            share = len(whole) // self._world.size
            shares.append(whole[self._world.rank * share : (self._world.rank + 1) * share])
        return shares

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from number `start` on, assembled ahead in a background
        thread.
        """

        def make(job: tuple[int, np.ndarray]) -> Batch:
            return self._assemble(Samples(self._seed, epoch, job[1]), self._slots[job[0] % _SLOTS])

        return prefetched(make, list(enumerate(self.rows(epoch)))[start:])

    def _assemble(self, samples: Samples, slot: Slot) -> Batch:
        corpus, rows = self.corpus, samples.rows
        videos = corpus.video_of[rows]
        tensors = corpus.texts.batch(rows) | corpus.videos.batch(videos, slot, samples)
        if corpus.tags is not None:
            tensors["tags"] = torch.from_numpy(corpus.tags[videos])
        tensors["video_index"] = torch.from_numpy(videos)
        return Batch(tensors, [corpus.video_ids[v] for v in videos])


def video_batches(
    videos: Videos,
    batch_size: int,
    world: World = World(),
    parts: Sequence[Sequence[int]] | None = None,
) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
    """Return all videos in order: their positions, and what models/base.py says; valid until the
    next batch is asked for. parts: the positions of each batch, instead of `batch_size` at a time.

    Of several processes each makes every `size`-th batch, so that batches are those of one process.
    """
    slots = [Slot() for _ in range(_SLOTS)]

    def make(job: tuple[int, Sequence[int]]) -> tuple[Sequence[int], dict[str, Tensor]]:
        return job[1], videos.batch(np.asarray(job[1]), slots[job[0] % _SLOTS])

    if parts is None:
        parts = chunks(len(videos), batch_size)
    return prefetched(make, enumerate(parts[world.rank :: world.size]))


def chunks(n: int, size: int) -> list[range]:
    """range(n) in parts of `size`, the last one smaller."""
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


Job, Made = TypeVar("Job"), TypeVar("Made")


@dataclass
class _End(Generic[Made]):
    error: BaseException | None = None


def prefetched(make: Callable[[Job], Made], jobs: Iterable[Job]) -> Iterator[Made]:
    """make(job) of each job in order, computed ahead by one thread.

    When a result is handed out, the one before it is no longer in use and two more may be under
    way: three in all. An exception in `make` is raised here. Closing the iterator ends the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def work() -> None:
        end = _End()
        try:
            for job in jobs:
                if stopped.is_set():
                    return
                ready.put(make(job))
        except BaseException as error:  # handed over: it is raised where the batch was asked for
            end.error = error
        ready.put(end)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while not isinstance(made := ready.get(), _End):
            yield made
        if made.error:
            raise made.error
    finally:
        stopped.set()
        while thread.is_alive():
            with_nothing_waiting(ready)
            thread.join(timeout=0.01)


def with_nothing_waiting(ready: queue.Queue) -> None:
    """Empty a queue, so that the thread that fills it can go on and end."""
    try:
        while True:
            ready.get_nowait()
    except queue.Empty:
        return
