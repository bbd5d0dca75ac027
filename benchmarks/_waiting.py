"""Batches on their way to a training step, and how long the step waited for them."""

import time
from collections.abc import Iterator

from pipeline.feeding.loader import Batch


class Waiting(Iterator[Batch]):
    """The batches of `made`; seconds: wall time spent waiting for them so far."""

    def __init__(self, made: Iterator[Batch]):
        self.made, self.seconds = made, 0.0

    def __next__(self) -> Batch:
        start = time.perf_counter()
        batch = next(self.made)
        self.seconds += time.perf_counter() - start
        return batch
