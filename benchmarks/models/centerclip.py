"""CenterCLIP ViT-B/32 with four segments of medoids after block 6 against our own plain backbone:
time and memory.

4 videos of 12 frames with a caption of 32 words each, untrained weights; the two models are the
same but for `reduce`. Memory is the peak of a training step above what the weights and gradients
occupy, as the kernel counts pages.

Run: OMP_NUM_THREADS=1 python -m benchmarks.models.centerclip      (a minute; CPU seconds of one
thread, or --device cuda)
"""

import argparse
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor

from models.base import Assets
from models.centerclip.model import CenterCLIP, build
from models.centerclip.options import Options

VIDEOS, FRAMES, WORDS = 4, 12, 32
REDUCE = {7: {"frames": 4, "tokens": 49, "method": "kmedoids", "tol": 1e-6}}


def make_batch(device: torch.device) -> dict[str, Tensor]:
    """Frames of smooth noise that changes slowly, so that neighbouring frames resemble each
    other.
    """
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(VIDEOS, 3, 4, 14, 14, generator=rng)
    frames = torch.nn.functional.interpolate(coarse, (FRAMES, 224, 224), mode="trilinear").permute(
        0, 2, 3, 4, 1
    )
    words = torch.randint(1, 40_000, (VIDEOS, WORDS), generator=rng)
    words[:, -1] = 49407
    batch = {
        "text": words,
        "text_mask": torch.ones(VIDEOS, WORDS, dtype=torch.bool),
        "frames": (255 * frames).to(torch.uint8).contiguous(),
        "video_mask": torch.ones(VIDEOS, FRAMES, dtype=torch.bool),
        "video_index": torch.arange(VIDEOS),
    }
    return {name: value.to(device) for name, value in batch.items()}


def models(device: torch.device) -> dict[str, CenterCLIP]:
    """Both sides with the same weights."""
    torch.manual_seed(0)
    plain = build(Options(frames=FRAMES, words=WORDS), Assets())
    reduced = Options(frames=FRAMES, words=WORDS, reduce=REDUCE)
    sides = {"plain": plain, "CenterCLIP": build(reduced, Assets(init=plain.state_dict()))}
    return {name: model.to(device) for name, model in sides.items()}


@torch.no_grad()
def forward(model: CenterCLIP, batch: dict[str, Tensor]) -> None:
    model.eval()
    model.encode_text(batch)
    model.encode_video(batch)


def training_step(model: CenterCLIP, batch: dict[str, Tensor]) -> None:
    """Forward and backward; gradients are kept, so that they are part of the baseline."""
    model.train()
    model.zero_grad(set_to_none=False)
    model(batch)["loss"].backward()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """CPU seconds, or on a GPU seconds until it is done."""
    if device.type == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def extra_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Peak memory of `work` above what was in use before."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    return 1024 * int(re.search(rf"{name}:\s*(\d+)", Path("/proc/self/status").read_text())[1])


def measured(model: CenterCLIP, batch: dict[str, Tensor], device: torch.device) -> dict[str, float]:
    """One run of each, and the memory of the training step."""
    extra: list[int] = []
    both = seconds(
        lambda: extra.append(extra_bytes(lambda: training_step(model, batch), device)), device
    )
    alone = seconds(lambda: forward(model, batch), device)
    return {
        "forward, s": alone,
        "forward + backward, s": both,
        "training memory, MB": extra[0] / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats",
        type=int,
        default=1,
        help="timed runs of each; sides take turns, the best counts",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(args.device)
    names = (
        x.split(":")[1].strip()
        for x in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in x
    )
    hardware = (
        f"{next(names, platform.processor())}, 1 thread"
        if args.device == "cpu"
        else torch.cuda.get_device_name()
    )
    click.echo(
        f"{hardware}, torch {torch.__version__}, float32; {VIDEOS} x {FRAMES} frames, medoids after"
        " block 6\n"
    )
    sides, batch = models(device), make_batch(device)
    best: dict[str, dict[str, float]] = {name: {} for name in sides}
    for model in sides.values():  # once untimed: memory is laid out, gradients exist
        training_step(model, batch)
    for _ in range(args.repeats):
        for name, model in sides.items():
            for what, value in measured(model, batch, device).items():
                best[name][what] = min(value, best[name].get(what, value))
    click.echo(f"{'':<24}{'plain':>10}{'CenterCLIP':>12}{'ratio':>8}{'goal':>8}")
    for what, goal in (
        ("forward, s", 0.74),
        ("forward + backward, s", 0.74),
        ("training memory, MB", 0.75),
    ):
        plain, ours = best["plain"][what], best["CenterCLIP"][what]
        digits = 0 if "MB" in what else 3
        click.echo(
            f"{what:<24}{plain:>10,.{digits}f}{ours:>12,.{digits}f}{ours / plain:>8.2f}{goal:>8.2f}"
        )


if __name__ == "__main__":
    main()
