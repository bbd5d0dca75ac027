"""CPU-seconds to rank a matrix both ways: the published formulations (stand-ins that sort) against
counting.

square: 1,000 texts x 1,000 videos, the test of MSR-VTT 1k-A; sorted rows compared with the
diagonal.
captions: 10,000 captions of 500 videos; an argsort per query, searched for every true item (Dual
Encoding family). Both sides take turns in one process and must agree on every rank. Run: python -m
benchmarks.runs.evaluation
"""

import os
import platform
import time
from collections.abc import Callable

import numpy as np

from pipeline.evaluation.metrics import count, count_v2t, evaluate

ROUNDS, LIMIT = 5, 0.1


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(
        f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, numpy"
        f" {np.__version__}"
    )
    rng = np.random.default_rng(0)
    square, captions = rng.random((1000, 1000), np.float32), rng.random((10_000, 500), np.float32)
    diagonal, owner = np.arange(1000), np.repeat(np.arange(500), 20)
    print(f"{'':12}{'published, s':>14}{'counting, s':>14}{'factor':>9}")
    one = row("square", lambda: sorted_square(square), lambda: counted(square, diagonal))
    row(
        "captions",
        lambda: sorted_captions(captions, owner),
        lambda: counted(captions, owner),
        rounds=1,
    )
    whole = best(lambda: evaluate(square, square.T, diagonal), ROUNDS)[0]
    verdict = "within" if whole < LIMIT else "BEYOND"
    print(
        f"all metrics of 1,000 x 1,000 both ways: {whole:.4f} s, {verdict} {LIMIT} s; counting is"
        f" {one:.0f} x as fast"
    )


def row(name: str, published: Callable, ours: Callable, rounds: int = ROUNDS) -> float:
    """One line of the table; returns the factor."""
    slow, expected = best(published, rounds)
    fast, ranks = best(ours, rounds)
    assert all((a == b).all() for a, b in zip(ranks, expected, strict=True)), (
        f"{name}: the ranks differ"
    )
    print(f"{name:12}{slow:14.4f}{fast:14.4f}{slow / fast:9.1f}")
    return slow / fast


def best(function: Callable, rounds: int) -> tuple[float, object]:
    """Smallest CPU-seconds of some rounds, and the result."""
    seconds, result = [], None
    for _ in range(rounds):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def counted(t2v: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return count(t2v, owner).ranks(), count_v2t(t2v.T, owner)[0].ranks()


def sorted_square(t2v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort every row, subtract the true score, look where the difference is zero."""
    sides = []
    for scores in (t2v, t2v.T):
        ordered = np.sort(-scores, axis=1)
        true = np.diag(-scores)[:, None]
        sides.append(np.where(ordered - true == 0)[1])
    return sides[0], sides[1]


def sorted_captions(t2v: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per query an argsort, and in it a search for the place of each true item."""
    return search_sorted(t2v, [[v] for v in owner]), search_sorted(
        t2v.T, [np.flatnonzero(owner == v) for v in range(500)]
    )


def search_sorted(scores: np.ndarray, truth: list) -> np.ndarray:
    ranks = np.empty(len(scores), np.int64)
    for n, (line, items) in enumerate(zip(scores, truth, strict=True)):
        order = np.argsort(line)[::-1]
        ranks[n] = min(np.where(order == item)[0][0] for item in items)
    return ranks


if __name__ == "__main__":
    main()
