"""CPU-seconds of one optimizer step over the parameters of CLIP ViT-B/32: a Python loop over
tensors against ours.

The loops are written from the specification (docs/specs/training-loop.md, section 2.1): BertAdam as
published, which also clips each tensor; AdamW as in PyTorch's plain form. Both sides start from the
same values, take turns in one process and must end with the same ones. Run: OMP_NUM_THREADS=1
python -m benchmarks.models.optimizer
"""

import math
import os
import platform
import time
from collections.abc import Callable

import click
import torch
from torch import Tensor, nn

from models.clip.sizes import BACKBONES
from models.clip.towers import CLIP
from pipeline.recipes.options import OptimizerOptions, ParameterRule
from pipeline.training import optimizer

ROUNDS, LR, DECAY, BETAS, EPS = 2, 1e-4, 0.2, (0.9, 0.98), 1e-6


def parameters() -> list[tuple[str, nn.Parameter]]:
    """Names, shapes and gradients of ViT-B/32 with small random values."""
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in CLIP(BACKBONES["ViT-B/32"]).named_parameters()}
    random = torch.Generator().manual_seed(0)
    named = [
        (name, nn.Parameter(0.02 * torch.randn(shape, generator=random)))
        for name, shape in shapes.items()
    ]
    for _, p in named:
        p.grad = 1e-3 * torch.randn(p.shape, generator=random)
    return named


class Loop:
    """One tensor after another, one operation after another."""

    def __init__(self, named: list[tuple[str, nn.Parameter]], update: Callable):
        self._named, self._update, self._step = named, update, 0
        self._state = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in named}

    @torch.no_grad()
    def step(self) -> None:
        self._step += 1
        for name, p in self._named:
            self._update(p, *self._state[name], 0.0 if "bias" in name else DECAY, self._step)


def bertadam(p: Tensor, m: Tensor, v: Tensor, decay: float, step: int) -> None:
    torch.nn.utils.clip_grad_norm_(p, 1.0)
    m.mul_(BETAS[0]).add_(p.grad, alpha=1 - BETAS[0])
    v.mul_(BETAS[1]).addcmul_(p.grad, p.grad, value=1 - BETAS[1])
    update = m / (v.sqrt() + EPS)
    if decay > 0:
        update += decay * p
    p.add_(-(LR * update))


def adamw(p: Tensor, m: Tensor, v: Tensor, decay: float, step: int) -> None:
    p.mul_(1 - LR * decay)
    m.mul_(BETAS[0]).add_(p.grad, alpha=1 - BETAS[0])
    v.mul_(BETAS[1]).addcmul_(p.grad, p.grad, value=1 - BETAS[1])
    root = (v.sqrt() / math.sqrt(1 - BETAS[1] ** step)).add_(EPS)
    p.addcdiv_(m, root, value=-LR / (1 - BETAS[0] ** step))


def ours(named: list[tuple[str, nn.Parameter]], name: str) -> Callable[[], None]:
    """One step of ours, per-tensor clipping included where the published optimizer has it."""
    rules = [ParameterRule(match="bias", weight_decay=0.0)]
    groups = optimizer.parameter_groups(named, rules, DECAY)
    made = optimizer.build(groups, OptimizerOptions(name=name, lr=LR, betas=BETAS, eps=EPS))
    optimizer.set_lr(made, LR)
    tensors = [p for _, p in named]

    def step() -> None:
        if name == "bertadam":
            optimizer.clip_per_tensor(tensors, 1.0)
        made.step()

    return step


def main() -> None:
    click.echo(f"{'':<12}{'loop, CPU-s':>14}{'ours, CPU-s':>14}{'factor':>9}{'difference':>13}")
    for name, update in (("bertadam", bertadam), ("adamw", adamw)):
        theirs, mine = parameters(), parameters()
        loop, step = Loop(theirs, update).step, ours(mine, name)
        spent: dict[Callable, list[float]] = {loop: [], step: []}
        for _ in range(ROUNDS + 1):  # the first round makes the state
            for side, times in spent.items():
                start = time.process_time()
                side()
                times.append(time.process_time() - start)
        slow, fast = (min(times[1:]) for times in spent.values())
        differ = max(
            (a - b).abs().max().item() for (_, a), (_, b) in zip(theirs, mine, strict=True)
        )
        click.echo(f"{name:<12}{slow:>14.3f}{fast:>14.3f}{slow / fast:>9.1f}{differ:>13.1e}")
    count = sum(p.numel() for _, p in mine)
    machine = platform.processor() or platform.machine()
    click.echo(
        f"{count:,} parameters, {machine}, {torch.get_num_threads()} of {os.cpu_count()} threads, "
        f"torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
