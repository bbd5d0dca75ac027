"""Samples per second into a training loop without a model: 12 frames of 224 pixels, uint8, warm,
two threads.

Tensor cache and JPEG store, each read one sample after another into one buffer ("alone", one
thread) and through the training loader, in turns; the best round of each counts. Published: 31
samples/s with two workers (docs/specs/preprocessing.md, section 6.2). Run: OMP_NUM_THREADS=1 python
-m benchmarks.data.feeding        (about 40 s)
"""

import os
import platform
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.data.frame_store import draw, write_video
from pipeline.core.artefact import Artefact
from pipeline.core.runner import Settings, run
from pipeline.feeding.corpus import Corpus
from pipeline.feeding.feed_rate import FeedRate, measure
from pipeline.feeding.frame_choice import Samples, choose
from pipeline.feeding.frames import FrameReader
from pipeline.feeding.inputs import Given, open_frames
from pipeline.feeding.loader import TrainBatches
from pipeline.recipes.options import FrameOptions
from pipeline.stages.frames import Stage as Frames
from pipeline.stages.tensors import Stage as Tensors
from pipeline.text.sentences import Sentences

VIDEOS, CAPTIONS, BATCH, FRAMES, SIZE, THREADS, SECONDS, ROUNDS = 20, 1280, 32, 12, 224, 2, 1.5, 3


def build(root: Path) -> dict[str, Given]:
    """The same videos in a frame store and in a tensor cache."""
    rng = np.random.default_rng(1)
    (root / "in").mkdir()
    for n in range(VIDEOS):
        write_video(root / "in" / f"video{n}.mp4", draw(rng, int(rng.integers(36, 46))))
    Frames.runs = "inline"
    videos = {"videos": Artefact("video_files", root / "in")}
    run(Frames(Frames.Options(crop="center"), videos, root / "store"), "store", Settings(jobs=1))
    store = Artefact("frame_store", root / "store")
    inputs = {"store": store, "bigfile": None, "videos": None}
    run(Tensors(Tensors.Options(frames={}), inputs, root / "cache"), "cache", Settings(jobs=1))
    return {
        "tensor cache": Given(tensors=Artefact("tensors", root / "cache")),
        "JPEG store": Given(store=store),
    }


def alone(reader: FrameReader, ids: list[str]) -> FeedRate:
    """The source itself: random samples into one buffer, one thread, no loader."""
    counts = np.array([reader.source.count(i) for i in ids])
    out, rng, done = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8), np.random.default_rng(0), 0
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < SECONDS:
        rows = rng.integers(0, len(ids), 32)
        index, _ = choose(counts[rows], FRAMES, "segments", Samples(0, 0, rows))
        for row, frames in zip(rows, index, strict=True):
            reader.source.read(ids[row], frames, out)
        done += len(rows)
    return FeedRate(done, 0, time.perf_counter() - start, time.process_time() - cpu)


def loader(reader: FrameReader, ids: list[str]) -> FeedRate:
    """What a training loop gets."""
    reader.faults(ids)
    rng = np.random.default_rng(0)
    texts = Sentences([[1, 2, 3]] * CAPTIONS, 32)
    corpus = Corpus(
        [""] * CAPTIONS, ids, rng.integers(0, len(ids), CAPTIONS), texts, reader.videos(ids)
    )
    return measure(TrainBatches(corpus, BATCH, seed=0, drop_last=True), SECONDS)


def main() -> None:
    ids = [f"video{n}" for n in range(VIDEOS)]
    click.echo(f"{'':<28}{'samples/s':>11}{'samples/CPU-s':>15}{'of the store':>14}")
    with tempfile.TemporaryDirectory() as name:
        for source, given in build(Path(name)).items():
            options = FrameOptions()
            reader = FrameReader(
                open_frames(given, SIZE, options), FRAMES, options, threads=THREADS
            )
            rounds = [(alone(reader, ids), loader(reader, ids)) for _ in range(ROUNDS)]
            base = 0.0
            for what, rates in zip(("alone", "loader"), zip(*rounds, strict=True), strict=True):
                per_second = max(rate.samples / rate.seconds for rate in rates)
                per_cpu = max(rate.samples / rate.cpu_seconds for rate in rates)
                base = base or per_cpu
                click.echo(
                    f"{f'{source}, {what}':<28}{per_second:>11,.0f}{per_cpu:>15,.0f}{per_cpu / base:>14.0%}"
                )
    machine = platform.processor() or platform.machine()
    click.echo(f"batch {BATCH}, {THREADS} threads, {machine}, {os.cpu_count()} cores (shared)")


if __name__ == "__main__":
    main()
