"""DGL at ViT-B/32 against a plain form of the same maths, and prompt tuning against full tuning in
memory.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/models/dgl.py

4 videos of 12 frames and 4 texts of 32 tokens, untrained weights. The plain form is
reference/dgl.py: every row of every sequence is computed and prompts are made for each sample, as
docs/specs/dgl.md says the published code does. CPU seconds of the process, each side once (the
fastest of `--rounds`) behind a warm-up; forward: as a part of the step. Memory: how far the
resident size of a process rises, gradients and the moments of AdamW included. Full tuning is
measured to the end of its forward pass only, to save time: whatever its backward pass would add
would be in our favour. Our layers choose the faster of two libraries for matrix products
(models/parts/matmul.py), the plain form takes torch's; --same-products gives both torch's. Embedding
frames is what a cache of patches could save (docs/specs/dgl.md, section 15).
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
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


def made(space: str, clip: object) -> object:
    """An untrained model around a CLIP."""
    from models.dgl.model import Dgl
    from models.dgl.options import Options

    return Dgl(Options(space=space), clip).train()


def untrained(freeze: bool) -> object:
    """A ViT-B/32."""
    import torch

    from models.clip.sizes import BACKBONES
    from models.clip.towers import CLIP

    torch.manual_seed(0)
    return CLIP(BACKBONES["ViT-B/32"]).requires_grad_(not freeze)


def step(model: object, loss: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of the forward pass of a training step, and of the whole step."""
    model.zero_grad(set_to_none=True)
    start = time.process_time()
    value = loss()
    middle = time.process_time()
    value.backward()
    return middle - start, time.process_time() - start


def compare(rounds: int) -> dict[str, float]:
    """Seconds of both sides in both spaces, and the bytes that our step takes: it comes first in
    this process.
    """
    import torch

    from reference import dgl

    before, clip, (ids, frames), found = resident("VmRSS"), untrained(freeze=True), inputs(), {}
    for space in ("transformer", "linear"):
        model = made(space, clip)
        if not found:
            with_moments(model)
            model({"text": ids[:1], "frames": frames[:1]})["loss"].backward()  # warms up
        sides = {
            "ours": lambda: model({"text": ids, "frames": frames})["loss"],  # noqa: B023
            "plain": lambda: dgl.loss(model, ids, frames),  # noqa: B023
        }
        for side, loss in sides.items():
            runs = [step(model, loss) for _ in range(rounds)]
            for n, name in enumerate(("forward", "step")):
                found[f"{name} {space} {side}"] = min(run[n] for run in runs)
            found.setdefault("peak", resident("VmHWM") - before)
    start = time.process_time()
    with torch.no_grad():
        model.embed(frames)
    return found | {"embedding": time.process_time() - start}


def full_tuning() -> dict[str, float]:
    """The bytes that a training of all weights takes up to the end of its forward pass."""
    before = resident("VmRSS")
    model, (ids, frames) = made("transformer", untrained(freeze=False)), inputs()
    optimizer = with_moments(model)
    loss = model({"text": ids, "frames": frames})["loss"]
    assert loss.requires_grad
    assert len(optimizer.state) == len(list(model.parameters()))
    return {"peak": resident("VmHWM") - before}


def with_moments(model: object) -> object:
    """AdamW behind its first step, so that its moments are there; gradients stay allocated."""
    import torch

    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True
    )
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.zeros_like(parameter).add_(0)  # written, so resident
    optimizer.step()
    return optimizer


def alone(what: str, *arguments: str) -> dict[str, float]:
    """What a process of its own finds."""
    command = [sys.executable, __file__, "--only", what, *arguments]
    return json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    )


def resident(key: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most. (ru_maxrss would also count the process that
    started it.)
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="timed rounds  [1]")
    parser.add_argument(
        "--same-products", action="store_true", help="torch's own matrix products on both sides"
    )
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    if arguments.same_products:
        from models.parts import matmul

        matmul.mkl_is_slow = lambda: False
    if arguments.only:
        print(json.dumps(full_tuning() if arguments.only == "full" else compare(arguments.rounds)))
        return
    passed = ["--rounds", str(arguments.rounds)] + ["--same-products"] * arguments.same_products
    found = alone("prompts", *passed)
    print(
        f"{'CPU seconds, ViT-B/32, 4 x 12 frames':<38}{'plain':>9}{'ours':>9}{'ratio':>8}{'target':>9}"
    )
    for name in ("forward linear", "step linear", "forward transformer", "step transformer"):
        plain, ours = found[f"{name} plain"], found[f"{name} ours"]
        target = TARGETS["forward" if name.startswith("forward") else name]
        print(f"{name:<38}{plain:>9.2f}{ours:>9.2f}{plain / ours:>7.2f}x{target:>8}x")
    print(f"{'of which embedding frames':<47}{found['embedding']:>9.2f}")
    print(
        f"\n{'peak memory of training, GB':<38}{'full':>9}{'prompts':>9}{'ratio':>8}{'target':>9}"
    )
    full, ours = alone("full")["peak"] / 1e9, found["peak"] / 1e9
    print(
        f"{'transformer (the larger space)':<38}{full:>9.2f}{ours:>9.2f}{ours / full:>8.2f}{TARGETS['memory']:>9}"
    )
    print(f"\none thread, torch {torch.__version__}, {platform.processor() or platform.machine()}")
    print("OMP_NUM_THREADS=1 .venv/bin/python benchmarks/models/dgl.py")


if __name__ == "__main__":
    main()
