"""One rate for several processes."""

import multiprocessing
import struct
import time
from pathlib import Path

from pipeline.fetching.rate_limit import RateLimit


def take(path: Path, pieces: int) -> None:
    limit = RateLimit(path, 100_000)
    for _ in range(pieces):
        limit.wait_for(5_000)


def test_two_processes_share_one_rate(tmp_path: Path):
    workers = [
        multiprocessing.get_context("fork").Process(target=take, args=(tmp_path / "rate", 4))
        for _ in range(2)
    ]
    start = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert 0.38 <= time.monotonic() - start < 2  # 40,000 bytes at 100,000 per second


def test_no_rate_writes_no_file(tmp_path: Path):
    RateLimit(tmp_path / "rate", None).wait_for(1 << 40)

    assert list(tmp_path.iterdir()) == []


def test_a_turn_from_before_the_machine_restarted_is_not_waited_for(tmp_path: Path):
    (tmp_path / "rate").write_bytes(struct.pack("<d", time.monotonic() + 1e6))
    start = time.monotonic()

    RateLimit(tmp_path / "rate", 1e6).wait_for(1000)

    assert time.monotonic() - start < 1
