"""Dual Encoding++ at published size on the whole path: loading in a training step, an evaluation,
its peak memory.

The published side is written from docs/specs/dual-encoding.md, sections 6 and 13: a feature file
opened, sought and closed for every frame and turned into lists of numbers; an evaluation that reads
and encodes every video again for each chunk of captions (and the captions again for each chunk of
videos), with one-hot bags of words and dense (videos, captions, tags) minima and maxima. Weights
are equal on both sides.

Run: OMP_NUM_THREADS=1 python -m benchmarks.runs.dual_encoding_pipeline [loading | evaluation |
memory]   (all by default)

evaluation is 500 videos x 10,000 captions in chunks of 1000, made smaller by --scale (5): 100 x
2,000 in chunks of 200, so that each video is encoded ten times there as at full size. The dense
part then weighs 5 times less than it would. memory is ours at full size, in a process of its own.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.models.dual_encoding import (
    FEATURE_DIM,
    N_TAGS,
    N_WORDS,
    Published,
    dense_jaccard,
    models,
    training_step,
)
from models.base import Assets
from models.dual_encoding.model import build
from models.dual_encoding.options import Options
from pipeline.evaluation.encode import encode_corpus
from pipeline.evaluation.retrieve import score
from pipeline.feeding.corpus import Corpus, FeatureVideos
from pipeline.feeding.loader import TrainBatches
from pipeline.stores.tensor_cache.reader import TensorCache
from pipeline.stores.tensor_cache.writer import TensorCacheWriter
from pipeline.text.sentences import Sentences

VIDEOS, CAPTIONS, CHUNK, BATCH = 500, 10_000, 1000, 128


def corpus(folder: Path, n_videos: int, n_captions: int) -> Corpus:
    """Clips of 10 to 32 s at two frames per second as MSR-VTT's, in a tensor cache and frame by
    frame in one file.
    """
    rng = np.random.default_rng(0)
    ids = [f"video{n}" for n in range(n_videos)]
    cache = TensorCacheWriter(folder / "tensors", "features", {})
    cache.open({})
    with (folder / "feature.bin").open("wb") as file:
        for n, video_id in enumerate(ids):
            length = int(np.clip(20 + rng.exponential(10), 20, 64))
            array = np.maximum(rng.standard_normal((length, FEATURE_DIM), np.float32), 0)
            cache.put(video_id, n, array)
            file.write(array.tobytes())
    cache.flush()
    cache.finish()
    cache.close()
    opened = TensorCache.open(folder / "tensors")
    words = [
        (4 + (N_WORDS - 4) * rng.random(w) ** 4).astype(int).tolist()
        for w in _lengths(rng, n_captions)
    ]
    tags = rng.random((n_videos, N_TAGS), np.float32) ** 20
    video_of = np.arange(n_captions) % n_videos
    videos = FeatureVideos(opened.__getitem__, ids, FEATURE_DIM)
    return Corpus(
        [f"c{n}" for n in range(n_captions)], ids, video_of, Sentences(words), videos, tags
    )


def _lengths(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.clip(rng.poisson(10, n) + 2, 4, 25)


def read_frames(folder: Path, data: Corpus) -> Callable[[int], Tensor]:
    """How the published program reads the frames of a video."""
    cache = TensorCache.open(folder / "tensors")
    lengths = [cache.shape(video_id)[0] for video_id in data.video_ids]
    first = np.cumsum([0, *lengths])

    def frame(row: int) -> list[float]:
        with (folder / "feature.bin").open("rb") as file:
            file.seek(row * FEATURE_DIM * 4)
            return np.frombuffer(file.read(FEATURE_DIM * 4), np.float32).tolist()

    return lambda video: torch.tensor([frame(row) for row in range(first[video], first[video + 1])])


def padded(items: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(n, longest, ...) with zeros behind, and lengths."""
    lengths = torch.tensor([len(item) for item in items])
    return torch.nn.utils.rnn.pad_sequence(items, batch_first=True), lengths


def spent(work: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds of all threads, and what came out."""
    start = time.process_time()
    value = work()
    return time.process_time() - start, value


def loading(folder: Path) -> None:
    """CPU seconds for the data of a step next to the step itself: 128 captions, Adam, clipping."""
    data = corpus(folder, BATCH * 2, BATCH * 4)
    batches = TrainBatches(data, BATCH, seed=0, drop_last=True)
    list(batches.epoch(0))  # every page has been touched once, as in any epoch but the first
    ours = spent(lambda: list(batches.epoch(1)))[0] / len(batches)
    rows, read = batches.rows(1)[0], read_frames(folder, data)
    published = spent(lambda: padded([read(video) for video in data.video_of[rows]]))[0]
    batch = next(batches.epoch(1)).tensors
    click.echo(f"{'a training step, batch 128':<28}{'step':>9}{'loading':>10}{'share':>9}")
    for name, model in models().items():
        if name == "ours, parity options":
            continue
        options = {"foreach": False} if "published" in name else {"fused": True}
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, **options)
        training_step(model, batch, optimizer)  # the first one allocates
        step = spent(lambda m=model, o=optimizer: training_step(m, batch, o))[0]
        load = published if "published" in name else ours
        click.echo(f"{name:<28}{step:>7.2f} s{load:>8.3f} s{load / (load + step):>9.2%}")
        del optimizer


@torch.inference_mode()
def published_scores(
    model: Published, data: Corpus, read: Callable[[int], Tensor], chunk: int
) -> list[Tensor]:
    """[latent, concept] scores (videos, captions), each chunk of videos against each chunk of
    captions.
    """
    n_videos, n_captions = len(data.video_ids), len(data.caption_ids)
    rows = []
    for top in range(0, n_videos, chunk):
        columns = []
        for left in range(0, n_captions, chunk):
            frames, lengths = padded([read(v) for v in range(top, min(top + chunk, n_videos))])
            video = torch.cat(
                [frames.sum(1) / lengths[:, None], *model.video_encoder(frames, lengths)], 1
            )
            del frames
            text = data.texts.batch(np.arange(left, min(left + chunk, n_captions)))
            words, n_words = text["text"], text["text_mask"].sum(1)
            bag = F.one_hot(words, N_WORDS).sum(1)
            bag[:, 0] = 0
            hidden = model.text_encoder(model.text_encoder.embedding(words), n_words)
            sentence = torch.cat([bag, *hidden], 1)
            lat, con = model.space_lat, model.space_con
            cosines = (
                F.normalize(lat["video_projection"](video))
                @ F.normalize(lat["text_projection"](sentence)).T
            )
            p, q = (
                torch.sigmoid(con[f"{s}_projection"](x))
                for s, x in (("video", video), ("text", sentence))
            )
            columns.append((cosines, dense_jaccard(p, q)))
        rows.append([torch.cat(parts, 1) for parts in zip(*columns, strict=True)])
    return [torch.cat(parts) for parts in zip(*rows, strict=True)]


def evaluation(folder: Path, scale: int) -> None:
    """CPU seconds from stored features and word ids to both score matrices."""
    data = corpus(folder, VIDEOS // scale, CAPTIONS // scale)
    chunk, sides = CHUNK // scale, models()
    for model in sides.values():
        model.eval()

    def ours(name: str, chunk: int | None) -> list[Tensor]:
        encoded = encode_corpus(sides[name], data, chunk=chunk)
        scores = score(sides[name], encoded.text, encoded.video)
        return [
            scores[space][torch.from_numpy(encoded.row_of_text)].T
            for space in ("latent", "concept")
        ]

    ways = {
        "published scheme": lambda: published_scores(
            sides["published scheme"], data, read_frames(folder, data), chunk
        ),
        f"ours, padded, chunks of {chunk}": lambda: ours("ours, parity options", chunk),
        "ours, default options": lambda: ours("ours, default options", None),
    }
    title = f"{VIDEOS // scale:,} videos x {CAPTIONS // scale:,} captions"
    click.echo(f"{title:<32}{'seconds':>9}{'speed':>9}{'max abs difference':>20}")
    first, reference = None, None
    for name, way in ways.items():
        seconds, scores = spent(way)
        first, reference = first or seconds, reference or scores
        # masked pooling gives other numbers on purpose
        difference = max(float((a - b).abs().max()) for a, b in zip(scores, reference, strict=True))
        shown = "-" if "default" in name else f"{difference:.1e}"
        click.echo(f"{name:<32}{seconds:>9.1f}{first / seconds:>8.1f}x{shown:>20}")


def memory(folder: Path) -> None:
    """Peak memory of the evaluation at full size above what the process holds with the model
    loaded.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.runs.dual_encoding_pipeline",
        "inside",
        "--folder",
        str(folder),
    ]
    corpus(folder, VIDEOS, 2)
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    click.echo(
        f"{VIDEOS:,} videos x {CAPTIONS:,} captions, ours: {found['seconds']:.1f} CPU seconds; peak"
        " memory"
    )
    click.echo(f"    {found['model']:,.0f} MB with the model, {found['peak']:,.0f} MB at the peak:")
    click.echo(
        f"    {found['peak'] - found['model']:,.0f} MB above it (mapped feature file included)"
    )


def inside(folder: Path) -> None:
    """What `memory` runs in a process of its own."""
    torch.set_num_threads(1)
    cache, rng = TensorCache.open(folder / "tensors"), np.random.default_rng(1)
    words = [
        (4 + (N_WORDS - 4) * rng.random(w) ** 4).astype(int).tolist()
        for w in _lengths(rng, CAPTIONS)
    ]
    videos = FeatureVideos(cache.__getitem__, cache.ids, FEATURE_DIM)
    ids = [f"c{n}" for n in range(CAPTIONS)]
    data = Corpus(ids, cache.ids, np.arange(CAPTIONS) % len(cache.ids), Sentences(words), videos)
    model = build(Options(), Assets(N_WORDS, N_TAGS, FEATURE_DIM)).eval()
    before = _peak_mb()
    start = time.process_time()
    encoded = encode_corpus(model, data)
    with torch.inference_mode():
        scores = score(model, encoded.text, encoded.video)
        model.fuse(scores, encoded.text, encoded.video)
    seconds = time.process_time() - start
    click.echo(json.dumps({"model": before, "peak": _peak_mb(), "seconds": seconds}))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["loading", "evaluation", "memory", "inside"])
    parser.add_argument("--scale", type=int, default=5, help="of `evaluation`; 1 is full size")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part == "inside":
        inside(chosen.folder)
        return
    torch.set_num_threads(1)
    parts = {
        "loading": loading,
        "evaluation": lambda folder: evaluation(folder, chosen.scale),
        "memory": memory,
    }
    for name, part in parts.items():
        if chosen.part in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                part(Path(folder))
            click.echo("")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next(
        (line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine()
    )
    click.echo(f"{processor}, 1 thread, torch {torch.__version__}; CPU seconds of all threads")


if __name__ == "__main__":
    main()
