"""Training of Dual Encoding++ on 4096-d features: what feeding costs, steps per second, share of a
step spent waiting.

The published side is written from the specification: one process that opens the feature file for
every frame, makes a list of numbers of each, then pads tensor by tensor, all between two steps
(dongYoun2/dual-encoding-system: dataset.py, utils/bigfile.py). The model, full size, is ours on
both sides.

Run: OMP_NUM_THREADS=1 python -m benchmarks.runs.training      (about a minute; --steps and
--batch-size to change it)
"""

import argparse
import contextlib
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks._waiting import Waiting
from pipeline.checkpoints import model_file
from pipeline.feeding.corpus import Corpus, FeatureVideos
from pipeline.feeding.loader import Batch, TrainBatches
from pipeline.processes import World
from pipeline.recipes.recipe import Recipe, parse
from pipeline.stores.big_file.reader import BigFile
from pipeline.stores.big_file.writer import BigFileWriter
from pipeline.stores.tensor_cache.reader import TensorCache
from pipeline.stores.tensor_cache.writer import TensorCacheWriter
from pipeline.text.sentences import Sentences
from pipeline.training.step import Stepper

DIM, WORDS, TAGS, VIDEOS, CAPTIONS = 4096, 7811, 512, 96, 960


def stores(folder: Path) -> tuple[TensorCache, BigFile]:
    """The same features, 20 to 60 frames a video (half-second frames of MSR-VTT), in both
    stores.
    """
    rng = np.random.default_rng(0)
    ids = [f"video{n}" for n in range(VIDEOS)]
    cache = TensorCacheWriter(folder / "tensors", "features", {})
    cache.open({})
    with BigFileWriter(folder / "features", DIM) as rows:
        for n, video_id in enumerate(ids):
            array = rng.standard_normal((rng.integers(20, 61), DIM), dtype=np.float32)
            cache.put(video_id, n, array)
            rows.append(video_id, [f"{video_id}_{t}" for t in range(len(array))], array)
        rows.finish(rows.videos)
    cache.flush()
    cache.finish()
    cache.close()
    return TensorCache.open(folder / "tensors"), BigFile.open(folder / "features")


def corpus(cache: TensorCache) -> Corpus:
    rng = np.random.default_rng(1)
    texts = Sentences(
        [rng.integers(4, WORDS, rng.integers(5, 20)).tolist() for _ in range(CAPTIONS)]
    )
    names = [f"caption{n}" for n in range(CAPTIONS)]
    tags = rng.random((VIDEOS, TAGS), dtype=np.float32)
    videos = FeatureVideos(cache.__getitem__, cache.ids, DIM)
    return Corpus(names, cache.ids, rng.integers(0, VIDEOS, CAPTIONS), texts, videos, tags)


def published(data: Corpus, batches: TrainBatches, store: BigFile, folder: Path) -> Iterator[Batch]:
    """The same batches, made as published: when they are asked for, frame by frame."""
    row = {frame: n for n, frame in enumerate(store.ids)}
    for rows in batches.rows(0):
        videos = [
            torch.Tensor([_frame(folder, row[f]) for f in store.videos[data.video_ids[v]]])
            for v in data.video_of[rows]
        ]
        features = torch.zeros(len(videos), max(map(len, videos)), DIM)
        mask = torch.zeros(features.shape[:2], dtype=torch.bool)
        for n, video in enumerate(videos):
            features[n, : len(video)], mask[n, : len(video)] = video, True
        others = {"tags": torch.from_numpy(data.tags[data.video_of[rows]])}
        others["video_index"] = torch.from_numpy(data.video_of[rows])
        yield Batch(
            data.texts.batch(rows) | others | {"features": features, "video_mask": mask}, []
        )


def _frame(folder: Path, row: int) -> list[float]:
    with (folder / "feature.bin").open("rb") as file:
        file.seek(row * DIM * 4)
        return np.frombuffer(file.read(DIM * 4), np.float32).tolist()


def feeding(made: Iterator[Batch], wanted: int) -> tuple[float, float]:
    """Captions per CPU-second (all threads) and per second, over `wanted` batches."""
    cpu, wall, captions = time.process_time(), time.perf_counter(), 0
    with contextlib.closing(made):
        for _ in range(wanted):
            captions += len(next(made).tensors["text"])
    return captions / (time.process_time() - cpu), captions / (time.perf_counter() - wall)


def stepping(recipe: Recipe, made: Iterator[Batch], steps: int) -> tuple[float, float, float]:
    """Steps per second, CPU seconds per step, and the share of the time spent waiting for
    batches.
    """
    torch.manual_seed(0)
    facts = {
        "vocabulary": {str(n): n for n in range(WORDS)},
        "tags": ["t"] * TAGS,
        "feature_dim": DIM,
    }
    model = model_file.build_model(recipe, facts).train()
    stepper = Stepper(model, model, recipe.train, torch.device("cpu"), World())
    stream = Waiting(made)
    stepper(stream, 1, 1e-4)  # the first step allocates
    stream.seconds, cpu, start = 0.0, time.process_time(), time.perf_counter()
    for _ in range(steps):
        stepper(stream, 1, 1e-4)
    spent = time.perf_counter() - start
    made.close()
    return steps / spent, (time.process_time() - cpu) / steps, stream.seconds / spent


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--batch-size", type=int, default=32)
    arguments.add_argument("--steps", type=int, default=3)
    chosen = arguments.parse_args()
    train = {
        "batch_size": chosen.batch_size,
        "precision": "float32",
        "optimizer": {"name": "adam", "lr": 1e-4},
    }
    recipe = parse({"name": "bench", "model": "dual_encoding", "train": train | {"grad_clip": 2.0}})
    with tempfile.TemporaryDirectory() as name:
        cache, store = stores(Path(name))
        data = corpus(cache)
        batches = TrainBatches(data, chosen.batch_size, seed=0, drop_last=True)
        list(batches.epoch(0))  # every page of the cache has been touched once
        sides = {
            "ours": lambda: batches.epoch(0),
            "published": lambda: published(data, batches, store, Path(name) / "features"),
        }
        click.echo(
            f"{'':<12}{'captions/CPU-s':>16}{'captions/s':>12}{'steps/s':>10}{'CPU-s/step':>12}{'waiting':>9}"
        )
        for side, make in sides.items():
            per_cpu, per_second = feeding(make(), min(len(batches), 12 if side == "ours" else 2))
            rate, cpu, share = stepping(recipe, make(), chosen.steps)
            click.echo(
                f"{side:<12}{per_cpu:>16,.0f}{per_second:>12,.0f}{rate:>10.2f}{cpu:>12.2f}{share:>9.1%}"
            )
    machine = platform.processor() or platform.machine()
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    click.echo(f"batch {chosen.batch_size}, {machine}, {threads}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
