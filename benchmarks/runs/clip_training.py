"""Training CLIP4Clip (meanP) at ViT-B/32 on a GPU: samples per second, share of the peak, share
spent waiting for data.

12 frames of 224 pixels in bfloat16, batch 128, fed from a tensor cache of drawn clips through the
training loader. The model's operations are counted by its sizes (a product of (n, k) and (k, m) is
2 n k m; backward twice as many) without those of norms and activations; the peak is the data
sheet's for dense bfloat16, or --peak.

Run: python -m benchmarks.runs.clip_training [--recompute]      (a minute; --device cpu --batch 4
--steps 1 tries it out)
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks._waiting import Waiting
from benchmarks.data.feeding import FRAMES, SIZE, VIDEOS, build
from models.base import Assets
from models.centerclip.model import CenterCLIP
from models.centerclip.model import build as build_model
from models.centerclip.options import Options
from models.clip.sizes import BACKBONES, Sizes
from pipeline.feeding.corpus import Corpus
from pipeline.feeding.frames import FrameReader
from pipeline.feeding.inputs import open_frames
from pipeline.feeding.loader import Batch, TrainBatches
from pipeline.processes import World
from pipeline.recipes.options import FrameOptions, TrainOptions
from pipeline.text.sentences import Sentences
from pipeline.training.step import Stepper

WORDS, WARM = 32, 3
PEAKS = {
    "H200": 989,
    "H100": 989,
    "A100": 312,
    "V100": 125,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "L4": 121,
}  # TFLOP/s


def operations(sizes: Sizes, frames: int, words: int) -> float:
    """Floating point operations of a training step for one text-video pair."""
    patches = sizes.grid**2
    image = _tower(1 + patches, sizes.vision_width, sizes.vision_layers) + 2 * patches * (
        3 * sizes.patch**2 * sizes.vision_width
    )
    return 3 * (frames * image + _tower(words, sizes.text_width, sizes.text_layers))


def _tower(tokens: int, width: int, layers: int) -> float:
    """q, k, v and out (4 W^2), the layers behind (8 W^2), scores and their use (2 N W), for every
    token.
    """
    return layers * 2 * tokens * (12 * width**2 + 2 * tokens * width)


def batches(given: object, size: int, pinned: bool) -> TrainBatches:
    """Endless enough: ten thousand captions of the drawn clips."""
    options, rng = FrameOptions(), np.random.default_rng(0)
    ids = [f"video{n}" for n in range(VIDEOS)]
    reader = FrameReader(open_frames(given, SIZE, options), FRAMES, options)
    reader.faults(ids)
    count = 10_240
    texts = Sentences(
        [[49406, *rng.integers(1, 40_000, WORDS - 2), 49407] for _ in range(count)], WORDS
    )
    corpus = Corpus([""] * count, ids, rng.integers(0, len(ids), count), texts, reader.videos(ids))
    return TrainBatches(corpus, size, seed=0, drop_last=True, pinned=pinned)


def measured(
    model: CenterCLIP, made: Iterator[Batch], device: torch.device, steps: int
) -> tuple[float, float, float]:
    """Seconds per step, of which waiting for data, and the peak of GPU memory in GB."""
    train = {"precision": "bfloat16", "optimizer": {"name": "adamw", "lr": 1e-6}}
    stepper = Stepper(model, model, TrainOptions.model_validate(train), device, World())
    stream = Waiting(made)
    for _ in range(WARM if device.type == "cuda" else 1):
        stepper(stream, 1, 1e-6)
    stream.seconds, start = 0.0, time.perf_counter()
    for _ in range(steps):
        stepper(stream, 1, 1e-6)  # it reads the loss, so it waits for the GPU
    spent = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    return spent / steps, stream.seconds / steps, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--backbone", default="ViT-B/32")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--recompute", action="store_true", help="keep less memory")
    parser.add_argument("--peak", type=float, default=0.0, help="TFLOP/s of the device")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks.runs.clip_training: there is no GPU that torch can use\n    Try --device"
            " cpu --batch 4."
        )
    device = torch.device(args.device)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    torch.manual_seed(0)
    options = Options(backbone=args.backbone, frames=FRAMES, words=WORDS, recompute=args.recompute)
    model = build_model(options, Assets()).to(device).train()
    with tempfile.TemporaryDirectory() as folder:
        given = build(Path(folder))["tensor cache"]
        made = batches(given, args.batch, pinned=args.device == "cuda").epoch(0)
        step, waiting, memory = measured(model, made, device, args.steps)
        made.close()
    done = args.batch * operations(BACKBONES[args.backbone], FRAMES, WORDS) / step / 1e12
    peak = args.peak or next((value for kind, value in PEAKS.items() if kind in name), 0)
    click.echo(
        f"{name}, torch {torch.__version__}, {args.backbone}, {FRAMES} frames, batch {args.batch},"
        " bfloat16\n"
    )
    click.echo(f"samples/s                   {args.batch / step:>10,.1f}")
    click.echo(f"seconds per step            {step:>10.3f}")
    share = f"{done / peak:.0%} of {peak:,.0f} (goal 50 %)" if peak else "peak unknown: --peak"
    click.echo(f"TFLOP/s of the model        {done:>10,.2f}   {share}")
    click.echo(f"waiting for data            {waiting / step:>10.1%}   (goal under 5 %)")
    if memory:
        click.echo(f"peak memory, GB             {memory:>10.1f}")


if __name__ == "__main__":
    main()
