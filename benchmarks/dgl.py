"""DGL at ViT-B/32 against a plain form of the same maths, and prompt tuning against full tuning in memory.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/dgl.py

4 videos of 12 frames and 4 texts of 32 tokens, untrained weights. The plain form is pipeline/parity/plain_dgl.py: every
row of every sequence is computed and prompts are made for each sample, as specs/dgl.md says the published code does.
CPU seconds of the process; of `--rounds` rounds in which both sides take turns, the fastest. Memory: peak resident
size of a process that makes one optimizer step (AdamW), less that of one that has only imported torch. About 80 CPU
seconds per round.
"""

import argparse
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BATCH, FRAMES, WORDS = 4, 12, 32
TARGETS = {"forward": 1.15, "step linear": 1.3, "step transformer": 1.5, "memory": 0.7}


def made(space: str, freeze: bool = True) -> tuple:
    """A model, ids (B, 32) and frames (B, 12, 224, 224, 3)."""
    import torch

    from models.base import Assets
    from models.dgl import build
    from models.options.dgl import Options

    torch.manual_seed(0)
    model = build(Options(space=space), Assets()).train()
    if freeze:
        model.clip.requires_grad_(False)
    ids = torch.randint(1000, 40000, (BATCH, WORDS))
    ids[:, 0] = 49406
    for row, end in enumerate((9, 12, 15, 20)):  # published captions have about 10 words
        ids[row, end], ids[row, end + 1 :] = 49407, 0
    return model, ids, torch.randint(0, 256, (BATCH, FRAMES, 224, 224, 3), dtype=torch.uint8)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def fastest(rounds: int, *sides: Callable[[], object]) -> list[float]:
    """CPU seconds of each side, the least of all rounds."""
    return [min(column) for column in zip(*([cpu_seconds(side) for side in sides] for _ in range(rounds)), strict=True)]


def compare(space: str, rounds: int) -> dict[str, tuple[float, float]]:
    import torch

    from pipeline.parity import plain_dgl

    model, ids, frames = made(space)
    batch = {"text": ids, "frames": frames}

    def forward_ours() -> None:
        with torch.inference_mode():
            model(batch)

    def forward_plain() -> None:
        with torch.inference_mode():
            plain_dgl.loss(model, ids, frames)

    def step(loss: Callable[[], torch.Tensor]) -> None:
        model.zero_grad(set_to_none=True)
        loss().backward()

    found = {}
    if space == "linear":  # the smaller gain: its prompts cost nothing
        model({name: tensor[:1] for name, tensor in batch.items()})  # warms up
        found[f"forward {space}"] = tuple(fastest(rounds, forward_plain, forward_ours))
    steps = fastest(
        rounds, lambda: step(lambda: plain_dgl.loss(model, ids, frames)), lambda: step(lambda: model(batch)["loss"])
    )
    return found | {f"step {space}": tuple(steps)}


def peak_of(what: str) -> float:
    """Peak resident bytes of a process of its own."""
    result = subprocess.run(
        [sys.executable, __file__, "--only", what], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return float(result.stdout.split()[-1])


def one_step(what: str) -> None:
    """One optimizer step in this process, then its peak resident size."""
    import torch

    torch.set_num_threads(1)
    if what != "nothing":
        space, _, how = what.partition(" ")
        model, ids, frames = made(space, freeze=how != "full")
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
        model({"text": ids, "frames": frames})["loss"].backward()
        optimizer.step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="timed rounds  [1]")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        one_step(arguments.only)
        return
    import torch

    torch.set_num_threads(1)
    found: dict[str, tuple[float, float]] = {}
    for space in ("linear", "transformer"):
        found |= compare(space, arguments.rounds)
    print(f"{'CPU seconds, ViT-B/32, 4 x 12 frames':<38}{'plain':>9}{'ours':>9}{'ratio':>8}{'target':>9}")
    for name, (plain, ours) in found.items():
        target = TARGETS["forward"] if name.startswith("forward") else TARGETS[name]
        print(f"{name:<38}{plain:>9.2f}{ours:>9.2f}{plain / ours:>7.2f}x{target:>8}x")
    print(f"\n{'peak memory of a step, GB':<38}{'full':>9}{'prompts':>9}{'ratio':>8}{'target':>9}")
    base = peak_of("nothing")
    full, ours = ((peak_of(f"transformer {how}") - base) / 1e9 for how in ("full", "prompts"))
    print(f"{'transformer (the larger)':<38}{full:>9.2f}{ours:>9.2f}{ours / full:>8.2f}{TARGETS['memory']:>9}")
    print(f"\none thread, torch {torch.__version__}, {platform.processor() or platform.machine()}")
    print("OMP_NUM_THREADS=1 .venv/bin/python benchmarks/dgl.py")


if __name__ == "__main__":
    main()
