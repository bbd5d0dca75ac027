"""The plain ViT-B/32 vision tower: ours against attention and layers written as published; time and
kept memory.

The stand-in is written from docs/specs/clip-backbone.md, section 3: tokens as (N, B, W), scaled
products and a softmax of their own, QuickGELU in three passes, every row through the last block.
Both sides have the same weights and normalised frames. "every row": without the short last block,
as a system does that reads all tokens. On an AMD processor half of the difference are the products,
which ours leaves to oneDNN there (models/parts/matmul.py).

Run: OMP_NUM_THREADS=1 python -m benchmarks.models.clip      (under a minute; CPU seconds of one
thread, best of three)
"""

import argparse
import functools
import platform
import time
from collections.abc import Callable

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.clip.blocks import set_recompute
from models.clip.sizes import BACKBONES, OPENAI
from models.clip.towers import VisionTransformer

ROUNDS = 3


class PublishedBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.heads = width // 64
        self.attn = nn.MultiheadAttention(width, self.heads)  # for its parameters
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )
        self.ln_2 = nn.LayerNorm(width)

    def attend(self, x: Tensor) -> Tensor:
        length, batch, width = x.shape
        q, k, v = F.linear(x, self.attn.in_proj_weight, self.attn.in_proj_bias).chunk(3, -1)
        q = q * (width // self.heads) ** -0.5
        q, k, v = (
            p.contiguous().view(length, batch * self.heads, -1).transpose(0, 1) for p in (q, k, v)
        )
        weights = torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1)
        found = torch.bmm(weights, v).transpose(0, 1).contiguous().view(length, batch, width)
        return self.attn.out_proj(found)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.ln_1(x))
        wide = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](wide * torch.sigmoid(1.702 * wide))


class Published(nn.Module):
    """The vision tower with its published names."""

    def __init__(self):
        super().__init__()
        sizes = BACKBONES["ViT-B/32"]
        width = sizes.vision_width
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + sizes.grid**2, width))
        self.proj = nn.Parameter(torch.zeros(width, sizes.embed))
        self.conv1 = nn.Conv2d(3, width, sizes.patch, stride=sizes.patch, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        blocks = nn.ModuleList(PublishedBlock(width) for _ in range(sizes.vision_layers))
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.ln_post = nn.LayerNorm(width)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.conv1(frames)
        x = x.reshape(x.shape[0], x.shape[1], -1).permute(0, 2, 1)
        top = self.class_embedding + torch.zeros(x.shape[0], 1, x.shape[-1])
        x = self.ln_pre(torch.cat([top, x], dim=1) + self.positional_embedding).permute(1, 0, 2)
        for block in self.transformer["resblocks"]:
            x = block(x)
        return (self.ln_post(x.permute(1, 0, 2)) @ self.proj)[:, 0]


def every_row(tower: VisionTransformer, frames: Tensor) -> Tensor:
    x = tower.embed(frames)
    for block in tower.blocks:
        x = block(x)
    return tower.project(x)[:, 0]


def seconds(sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """CPU seconds of each side, the least of all rounds; the sides take turns, so that all meet the
    same machine.
    """
    best = dict.fromkeys(sides, float("inf"))
    for run in sides.values():
        run()
    for _ in range(ROUNDS):
        for name, run in sides.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return best


def training(
    run: Callable[[Tensor], Tensor], model: nn.Module, frames: Tensor
) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad()
        run(frames).square().sum().backward()

    return step


def kept(run: Callable[[Tensor], Tensor], model: nn.Module, frames: Tensor) -> float:
    """Megabytes that forward keeps for backward, weights not counted, memory that two tensors share
    counted once.
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        if value.untyped_storage().data_ptr() not in weights:
            held[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        run(frames)
    return sum(value.untyped_storage().nbytes() for value in held.values()) / 1e6


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--frames", type=int, default=12, help="for the forward pass; half of them with backward"
    )
    n = arguments.parse_args().frames
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours = VisionTransformer(BACKBONES["ViT-B/32"], OPENAI).eval()
    published = Published().eval()
    published.load_state_dict(ours.state_dict())
    frames = ours.pixels(torch.randint(0, 256, (n, 224, 224, 3), dtype=torch.uint8)).contiguous()
    few = frames[: n // 2]
    sides = {
        "as published": (published, published),
        "ours, every row": (lambda x: every_row(ours, x), ours),
        "ours": (ours, ours),
    }
    with torch.inference_mode():
        difference = max(
            float((run(few) - published(few)).abs().max()) for run, _ in sides.values()
        )
        forward = seconds(
            {name: functools.partial(run, frames) for name, (run, _) in sides.items()}
        )
    both = seconds({name: training(run, model, few) for name, (run, model) in sides.items()})
    memory = {name: kept(run, model, few) for name, (run, model) in sides.items()}
    set_recompute(ours)
    memory["ours, recomputing"] = kept(ours, ours, few)
    click.echo(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, 1 thread; random"
        " weights"
    )
    click.echo(
        f"{'':<20}{f'forward, {n}':>14}{'faster':>9}{f'+ backward, {n // 2}':>17}{'faster':>9}{'kept, MB':>11}"
    )
    first = "as published"
    for name in sides:
        gains = f"{forward[first] / forward[name]:.2f}x", f"{both[first] / both[name]:.2f}x"
        times = f"{forward[name]:.2f} s", f"{both[name]:.2f} s"
        click.echo(
            f"{name:<20}{times[0]:>14}{gains[0]:>9}{times[1]:>17}{gains[1]:>9}{memory[name]:>11.0f}"
        )
    click.echo(f"{'ours, recomputing':<20}{'':>49}{memory['ours, recomputing']:>11.0f}")
    click.echo(f"largest difference of the features: {difference:.1e}")


if __name__ == "__main__":
    main()
