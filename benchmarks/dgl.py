"""DGL at ViT-B/32 against a plain form of the same maths, and prompt tuning against full tuning in memory.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/dgl.py

4 videos of 12 frames and 4 texts of 32 tokens, untrained weights. The plain form is pipeline/parity/plain_dgl.py: every
row of every sequence is computed and prompts are made for each sample, as specs/dgl.md says the published code does.
CPU seconds of the process; of `--rounds` rounds in which both sides take turns, the fastest; forward: as a part of
the step. Memory: how far the resident size of a process rises that builds a model and trains it with AdamW, whose
moments are there from the second step on: the first one here is of one video, for them alone.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BATCH, FRAMES, WORDS = 4, 12, 32
TARGETS = {"forward": 1.15, "step linear": 1.3, "step transformer": 1.5, "memory": 0.7}


def inputs() -> tuple:
    """Ids (4, 32) and frames (4, 12, 224, 224, 3)."""
    import torch

    ids = torch.randint(1000, 40000, (BATCH, WORDS))
    ids[:, 0] = 49406
    for row, end in enumerate((9, 12, 15, 20)):  # published captions have about 10 words
        ids[row, end], ids[row, end + 1 :] = 49407, 0
    return ids, torch.randint(0, 256, (BATCH, FRAMES, 224, 224, 3), dtype=torch.uint8)


def made(spaces: Sequence[str], freeze: bool) -> list:
    """A model for each space, around one CLIP."""
    import torch

    from models.clip import CLIP
    from models.clip_sizes import BACKBONES
    from models.dgl import Dgl
    from models.options.dgl import Options

    torch.manual_seed(0)
    clip = CLIP(BACKBONES["ViT-B/32"]).requires_grad_(not freeze)
    return [Dgl(Options(space=space), clip).train() for space in spaces]


def step(model: object, loss: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of the forward pass of a training step, and of the whole step."""
    model.zero_grad(set_to_none=True)
    start = time.process_time()
    value = loss()
    middle = time.process_time()
    value.backward()
    return middle - start, time.process_time() - start


def compare(rounds: int) -> dict[str, tuple[float, float]]:
    """{what: (plain, ours)}, the least CPU seconds of all rounds."""
    from pipeline.parity import plain_dgl

    ids, frames = inputs()
    found = {}
    for model in made(("linear", "transformer"), freeze=True):
        batch = {"text": ids, "frames": frames}
        if not found:  # warms up
            model({name: tensor[:1] for name, tensor in batch.items()})["loss"].backward()
        sides = (lambda: plain_dgl.loss(model, ids, frames), lambda: model(batch)["loss"])  # noqa: B023
        runs = [[step(model, side) for side in sides] for _ in range(rounds)]
        for n, name in enumerate(("forward", "step")):
            found[f"{name} {model.options.space}"] = tuple(min(run[side][n] for run in runs) for side in (0, 1))
    return found


def peak_of(what: str) -> float:
    """Gigabytes that a training takes at its peak, in a process of its own."""
    result = subprocess.run(
        [sys.executable, __file__, "--only", what], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return float(result.stdout.split()[-1]) / 1e9


def few_steps(what: str) -> None:
    """A training in this process; prints how far its resident size rose, in bytes."""
    import torch

    torch.set_num_threads(1)
    before = resident("VmRSS")
    (model,) = made(("transformer",), freeze=what != "full")
    ids, frames = inputs()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    for n in (1, BATCH):
        optimizer.zero_grad(set_to_none=True)
        model({"text": ids[:n], "frames": frames[:n]})["loss"].backward()
        optimizer.step()
    print(resident("VmHWM") - before)


def resident(key: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most. (ru_maxrss would also count the process that started it.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="timed rounds  [1]")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        few_steps(arguments.only)
        return
    import torch

    torch.set_num_threads(1)
    found = compare(arguments.rounds)
    print(f"{'CPU seconds, ViT-B/32, 4 x 12 frames':<38}{'plain':>9}{'ours':>9}{'ratio':>8}{'target':>9}")
    for name, (plain, ours) in found.items():
        target = TARGETS["forward"] if name.startswith("forward") else TARGETS[name]
        print(f"{name:<38}{plain:>9.2f}{ours:>9.2f}{plain / ours:>7.2f}x{target:>8}x")
    print(f"\n{'peak memory of training, GB':<38}{'full':>9}{'prompts':>9}{'ratio':>8}{'target':>9}")
    full, ours = peak_of("full"), peak_of("prompts")
    print(f"{'transformer (the larger space)':<38}{full:>9.2f}{ours:>9.2f}{ours / full:>8.2f}{TARGETS['memory']:>9}")
    print(f"\none thread, torch {torch.__version__}, {platform.processor() or platform.machine()}")
    print("OMP_NUM_THREADS=1 .venv/bin/python benchmarks/dgl.py")


if __name__ == "__main__":
    main()
