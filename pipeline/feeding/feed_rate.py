"""How fast batches come, without a model: a trainer that starves shows here."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.feeding.loader import Batch, TrainBatches


@dataclass(frozen=True)
class FeedRate:
    """Samples (captions with their videos), bytes of their tensors, seconds on the clock and of all
    threads.
    """

    samples: int
    bytes: int
    seconds: float
    cpu_seconds: float


def measure(batches: TrainBatches, seconds: float) -> FeedRate:
    """Take batches for so long (at least two), epoch after epoch. The first, which makes the
    memory, does not count.
    """
    samples = n_bytes = 0
    with contextlib.closing(_endless(batches)) as stream:
        next(stream)
        start, cpu, done = time.perf_counter(), time.process_time(), 0
        while done < 2 or time.perf_counter() - start < seconds:
            batch, done = next(stream), done + 1
            samples += len(batch.video_ids)
            n_bytes += sum(t.numel() * t.element_size() for t in batch.tensors.values())
        return FeedRate(samples, n_bytes, time.perf_counter() - start, time.process_time() - cpu)


def _endless(batches: TrainBatches) -> Iterator[Batch]:
    epoch = 0
    while True:
        with contextlib.closing(batches.epoch(epoch)) as made:
            yield from made
        epoch += 1
