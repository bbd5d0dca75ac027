"""Videos per CPU-second read from a BigFile: the published way of reading against ours, 30 frames
of 4096 values each.

Every read ends with an array that its reader owns and has summed up, so that no side can leave the
rows untouched. Both sides take turns in one process; the file is in the page cache. Run: python -m
benchmarks.data.big_file [--videos N]
"""

import argparse
import os
import platform
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.stores.big_file.reader import BigFile
from pipeline.stores.big_file.writer import BigFileWriter

FRAMES, DIM, BATCH = 30, 4096, 128
ROUNDS, DEMAND = 4, 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=256)
    count = parser.parse_args().videos
    print(
        f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, numpy"
        f" {np.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        written = build(Path(folder), count)
        store = BigFile.open(Path(folder))
        videos = list(store.videos)
        index = {item_id: row for row, item_id in enumerate(store.ids)}
        sides = {
            "published reader": (lambda: published(store, index, videos), 1),
            "read_video, copied": (lambda: ours(store, videos), 20),
            "read_video, summed as a view": (lambda: views(store, videos), 20),
            "padded batches of 128": (lambda: batches(store, videos), 10),
        }
        rates = measured(sides, count)
    print(
        f"{'':30}{'videos per CPU-second':>22}{'factor':>9}   ({count} videos of {FRAMES} x {DIM})"
    )
    for name, rate in rates.items():
        print(f"{name:30}{rate:22,.0f}{rate / rates['published reader']:9.1f}")
    print(f"{'BigFileWriter.append':30}{written:22,.0f}")
    factor = rates["read_video, copied"] / rates["published reader"]
    print(f"ours reads {factor:.0f} x the videos of the published way (must reach {DEMAND})")


def build(folder: Path, count: int) -> float:
    """Write the store; videos per CPU-second."""
    random, start = np.random.default_rng(0), time.process_time()
    rows = random.random((FRAMES, DIM), np.float32)
    with BigFileWriter(folder, DIM) as writer:
        for n in range(count):
            writer.append(
                f"video{n}", [f"video{n}_{12 * i}" for i in range(FRAMES)], rows + np.float32(n)
            )
        writer.finish(writer.videos)
    return count / (time.process_time() - start)


def measured(sides: dict[str, tuple[Callable[[], float], int]], count: int) -> dict[str, float]:
    """Best rate of each side in ROUNDS rounds in turn; all must give the same sum."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    sums = set()
    for _ in range(ROUNDS):
        for name, (work, repeats) in sides.items():
            start = time.process_time()
            for _ in range(repeats):
                total = work()
            spent[name].append((time.process_time() - start) / repeats)
            sums.add(round(total))
    assert len(sums) == 1, sums
    return {name: count / min(seconds) for name, seconds in spent.items()}


def published(store: BigFile, index: dict[str, int], videos: list[str]) -> float:
    """The published access pattern, from its description: for every frame open the file, seek to
    its row, read the row into a Python array, make that a list, make the list an array; then stack
    the arrays of a video.
    """
    total = 0.0
    for video_id in videos:
        rows = []
        for frame_id in store.videos[video_id]:
            values = array("f")
            with (store.path / "feature.bin").open("rb") as file:
                file.seek(index[frame_id] * DIM * values.itemsize)
                values.fromfile(file, DIM)
            rows.append(np.array(values.tolist(), dtype=np.float32))
        total += float(np.stack(rows)[:, 0].sum(dtype=np.float64))
    return total


def ours(store: BigFile, videos: list[str]) -> float:
    return sum(
        float(np.array(store.read_video(video_id))[:, 0].sum(dtype=np.float64))
        for video_id in videos
    )


def views(store: BigFile, videos: list[str]) -> float:
    return sum(float(store.read_video(video_id)[:, 0].sum(dtype=np.float64)) for video_id in videos)


def batches(store: BigFile, videos: list[str]) -> float:
    total, batch = 0.0, np.zeros((BATCH, FRAMES, DIM), np.float32)
    for start in range(0, len(videos), BATCH):
        part = videos[start : start + BATCH]
        for slot, video_id in zip(batch, part, strict=False):
            rows = store.read_video(video_id)
            slot[: len(rows)] = rows
        total += float(batch[: len(part), :, 0].sum(dtype=np.float64))
    return total


if __name__ == "__main__":
    main()
