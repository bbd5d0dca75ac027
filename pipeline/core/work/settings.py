"""How to run a step; nothing here changes what comes out."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """jobs: worker processes, 0: one per core. memory_bytes: address space of a worker, 0: any.

    max_failures: share of items that may fail. allow_removals: that most of the former inputs are
    gone is meant. shard: (I, N): only the items of part I of N.
    """

    jobs: int = 0  # 0: one per core
    retries: int = 1
    max_failures: float = 0.05
    memory_bytes: int = 4 << 30
    force: bool = False
    retry_failed: bool = False
    fail_fast: bool = False
    allow_removals: bool = False
    shard: tuple[int, int] = (0, 1)

    @property
    def workers(self) -> int:
        return self.jobs or len(os.sched_getaffinity(0))
