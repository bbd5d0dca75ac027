"""Search in indexes of 10,000 to 1,000,000 windows: build, open, time per query, recall, memory.

    python -m benchmarks.data.search --windows 10000 100000 1000000

Beside the product's own search stands a plain product in numpy of float32 rows in memory. Vectors
are made up: clusters of 512 numbers, as a CLIP gives them; one thread, CPU time.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pipeline.search.collection import Indexed
from pipeline.search.ranking import Choice, Query, rank
from pipeline.stores.index.reader import SUMMARY, IndexStore
from pipeline.stores.index.writer import IndexWriter

DIM, PER_VIDEO, QUERIES, TOP = 512, 20, 20, 10
OPEN = """
import resource, sys, time
from pathlib import Path
from pipeline.stores.index.reader import IndexStore
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
store = IndexStore.open(Path(sys.argv[1]))
store.place(store.rows - 1)
print(time.perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, nargs="+", default=[10_000, 100_000])
    torch.set_num_threads(1)
    print(f"{'windows':>10} {'build s':>8} {'open ms':>8} {'RSS MB':>7} {'query ms':>9}"
          f" {'numpy ms':>9} {'recall@10':>10} {'disk MB':>8}")  # fmt: skip
    for n in parser.parse_args().windows:
        with tempfile.TemporaryDirectory() as folder:
            print(line(Path(folder), n), flush=True)


def line(folder: Path, n: int) -> str:
    """One row of the table."""
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((256, DIM)))
    start = time.process_time()
    build(folder, n, rng, centres)
    built = time.process_time() - start
    code = [sys.executable, "-c", OPEN, str(folder)]
    opened, rss = subprocess.run(code, capture_output=True, text=True, check=True).stdout.split()
    collection = Indexed(IndexStore.open(folder))
    queries = unit(centres[:QUERIES] + 0.7 * rng.standard_normal((QUERIES, DIM)) / DIM**0.5)
    queries = queries.astype(np.float32)
    whole = np.asarray(collection.summaries, np.float32)
    ours = timed(lambda q: rank(collection, Query(q, None), Choice(TOP)).rows, queries)
    plain = timed(lambda q: np.argpartition(-(whole @ q), TOP)[:TOP], queries)
    recall = np.mean(
        [len(set(a.tolist()) & set(b.tolist())) / TOP
         for a, b in zip(ours[1], plain[1], strict=True)]
    )  # fmt: skip
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    return (f"{n:>10,} {built:>8.1f} {1000 * float(opened):>8.2f} {float(rss):>7.1f}"
            f" {ours[0]:>9.2f} {plain[0]:>9.2f} {recall:>10.3f} {size:>8.0f}")  # fmt: skip


def build(folder: Path, n: int, rng: np.random.Generator, centres: np.ndarray) -> None:
    """An index of n windows of made-up vectors, PER_VIDEO in each video."""
    writer = IndexWriter(folder)
    spans = np.array([[5 * k, 5 * k + 10] for k in range(PER_VIDEO)], np.float32)
    for video in range(n // PER_VIDEO):
        noise = rng.standard_normal((PER_VIDEO, DIM), dtype=np.float32) * (0.7 / DIM**0.5)
        writer.append(
            f"video{video}", f"{video}.mp4", spans, {SUMMARY: unit(centres[video % 256] + noise)}
        )
    writer.finish({"root": "/films", "checkpoint": {}, "statistics": {}})


def timed(search: object, queries: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """CPU milliseconds per query, and what was found."""
    search(queries[0])
    start = time.process_time()
    found = [search(query) for query in queries]
    return 1000 * (time.process_time() - start) / len(queries), found


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
