"""DRL: ranking 1,000 x 1,000 by WTI, a training step at ViT-B/32, and the memory of its
decorrelation, both ways.

The published side is a stand-in written from docs/specs/drl.md. Ranking: tiles of 32 texts x 32
videos, weights and directions made anew in each, padding multiplied like everything else (6 to 19
of 32 tokens are real). Step: 4 videos of 12 frames, attention batch-second and unfused, anomaly
detection, the gradient clipped twice, BertAdam one tensor at a time. Memory: (N, D, D) products of
matched tokens.

Run: OMP_NUM_THREADS=1 python -m benchmarks.models.drl [--only memory,ranking,step]      (CPU
seconds of one thread)
"""

import argparse
import platform
import resource
import time
from collections.abc import Callable

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Assets
from models.drl.model import Drl, build
from models.drl.options import Options
from models.parts.losses import correlation, decorrelation
from pipeline.evaluation.retrieve import score
from pipeline.feeding.loader import Batch
from pipeline.processes import World
from pipeline.recipes.options import TrainOptions
from pipeline.training.step import Stepper
from reference.drl import PublishedStep, published_correlation, published_ranking

N, WORDS, FRAMES, DIM = 1000, 32, 12, 512
PARTS = ("memory", "ranking", "step")
LIMITS = {"ranking": 1 / 3.5, "step": 0.65}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}")
    chosen = parser.parse_args().only.split(",")
    torch.set_num_threads(1)
    click.echo(
        f"{platform.processor() or platform.machine()}, 1 thread, torch {torch.__version__},"
        " float32"
    )
    for part in PARTS:  # memory first: the peak of a process never falls
        if part in chosen:
            {"memory": memory, "ranking": ranking, "step": step}[part]()


def ranking() -> None:
    random = torch.Generator().manual_seed(0)
    text = {
        "features": torch.randn(N, WORDS, DIM, generator=random),
        "real": _real(WORDS, (6, 19), random),
    }
    video = {
        "features": torch.randn(N, FRAMES, DIM, generator=random),
        "real": _real(FRAMES, (10, 12), random),
    }
    head = _head().eval()

    def ours() -> Tensor:
        with torch.inference_mode():
            return score(head, head.text_encoding(text), head.video_encoding(video))["similarity"]

    ours()  # warm
    fast, found = _timed(ours)
    slow, expected = _timed(lambda: published_ranking(head, text, video))
    largest = float((found - expected).abs().max())
    _row("ranking", slow, fast, f"{N:,} x {N:,}, largest difference {largest:.1e}")


def memory() -> None:
    """Peak of the decorrelation of a batch of 128 with 1,500 real tokens, and what it keeps for
    backward.
    """
    random = torch.Generator().manual_seed(0)
    a, b = (
        F.normalize(torch.randn(1500, DIM, generator=random), dim=1).requires_grad_()
        for _ in range(2)
    )
    weight = torch.rand(1500, generator=random).requires_grad_()
    kept = _kept(lambda: decorrelation(correlation(a, b, weight, 128), 0.11, 0.02))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decorrelation(correlation(a, b, weight, 128), 0.11, 0.02).backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    few = [x.detach()[:50].requires_grad_() for x in (a, b)]
    few.append(weight.detach()[:50].requires_grad_())
    tiny = _kept(lambda: decorrelation(published_correlation(*few, 128), 0.11, 0.02))
    click.echo(
        "memory    CDCR of 1,500 tokens, one direction, forward and backward: kept"
        f" {kept / 1e6:.1f} MB, peak {peak / 1e3:.0f} MB more resident; published keeps"
        f" {tiny / 1e6:.0f} MB for 50 tokens, so {30 * tiny / 1e9:.1f} GB for 1,500"
    )


def step() -> None:
    random = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    options = Options(cdcr=3, cdcr_alpha1=0.11, cdcr_alpha2=0.0)
    model = build(options, Assets()).train()
    published = PublishedStep(model, lr=1e-4, coef_lr=1e-3, steps=1000)
    lengths = torch.randint(6, 20, (4,), generator=random)
    real = torch.arange(WORDS) < lengths[:, None]
    batch = {
        "text": torch.randint(1, 49_000, (4, WORDS), generator=random) * real,
        "text_mask": real,
        "frames": torch.randn(4, FRAMES, 3, 224, 224, generator=random),
        "video_mask": torch.ones(4, FRAMES, dtype=torch.bool),
    }
    steppers = {kind: _stepper(model, kind) for kind in ("float32", "bfloat16")}
    losses: dict[str, float] = {}

    def ours(kind: str) -> None:
        losses[kind] = steppers[kind](iter([Batch(dict(batch), [])]), 1, 0.0).terms["loss"]

    def theirs() -> None:
        losses["published"] = published(batch)

    theirs()  # first steps make the moments; their rate is 0, as published
    ours("float32")
    difference = abs(losses["float32"] - losses["published"])
    fast, slow = _timed(lambda: ours("float32"))[0], _timed(theirs)[0]
    note = f"4 x {FRAMES} frames, {sum(p.numel() for p in model.parameters()):,} parameters"
    _row("step", slow, fast, f"{note}, difference of the loss {difference:.1e}")
    half = _timed(lambda: ours("bfloat16"))[0]
    _row("step", slow, half, "the same with precision: bfloat16 on our side")


def _stepper(model: Drl, precision: str) -> Stepper:
    options = _train_options().model_copy(update={"precision": precision})
    return Stepper(model, model, options, torch.device("cpu"), World())


def _train_options() -> TrainOptions:
    return TrainOptions.model_validate(
        {
            "precision": "float32",
            "optimizer": {
                "name": "bertadam",
                "lr": 1e-4,
                "betas": [0.9, 0.98],
                "eps": 1e-6,
                "weight_decay": 0.2,
                "clip_per_tensor": 1.0,
            },
            "params": [
                {"match": r"^clip\.", "lr_scale": 1e-3},
                {"match": "bias", "weight_decay": 0.0},
            ],
            "grad_clip": 1.0,
        }
    )


def _head() -> Drl:
    """A model of full width around a CLIP of two blocks: only its head is used."""
    from dataclasses import replace

    from models.clip.sizes import BACKBONES
    from models.clip.towers import CLIP

    torch.manual_seed(0)
    small = replace(BACKBONES["ViT-B/32"], vision_layers=1, text_layers=1, vocabulary=64)
    model = Drl(Options(aggregation="none", interaction="wti"), CLIP(small))
    model.start_from_clip()
    return model


def _real(width: int, lengths: tuple[int, int], random: torch.Generator) -> Tensor:
    counts = torch.randint(lengths[0], lengths[1] + 1, (N,), generator=random)
    return torch.arange(width) < counts[:, None]


def _kept(loss: Callable[[], Tensor]) -> int:
    """Bytes of all storages that autograd keeps for backward."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss()
    return sum(storages.values())


def _timed(function: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    found = function()
    return time.process_time() - start, found


def _row(name: str, slow: float, fast: float, note: str) -> None:
    limit = LIMITS[name]
    verdict = "within" if fast / slow <= limit else "BEYOND"
    click.echo(
        f"{name:<9} published {slow:7.2f} s   ours {fast:7.2f} s   {slow / fast:5.2f} x, share"
        f" {fast / slow:.2f} ({verdict} {limit:.2f})   {note}"
    )


if __name__ == "__main__":
    main()
