"""k-medoids++ at published sizes: ours against the published formulation, time and memory; and what
noise changes.

The stand-in is written from docs/specs/centerclip.md, section 5.1: float32 distances by matrix
products, and in every round the distance matrix repeated once per cluster, [rows, K, N, N], masked
and summed, 16 rows at a time.

Run: OMP_NUM_THREADS=1 python -m benchmarks.models.clustering      (about a minute; CPU seconds of
one thread)
"""

import argparse
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor

from models.centerclip.kmedoids import kmedoids

CASES = ((24, 98, 49), (16, 147, 49), (4, 588, 160))
WIDTH, FRAMES_PER_CASE, SPLIT = 768, {98: 2, 147: 3, 588: 3}, 16


def make_tokens(rows: int, n: int, seed: int = 0, correlation: float = 0.9) -> Tensor:
    """Tokens of neighbouring frames that resemble each other, (rows, n, WIDTH)."""
    rng, frames = torch.Generator().manual_seed(seed), FRAMES_PER_CASE[n]
    scene = torch.randn(rows, 1, n // frames, WIDTH, generator=rng)
    own = torch.randn(rows, frames, n // frames, WIDTH, generator=rng)
    return (correlation**0.5 * scene + (1 - correlation) ** 0.5 * own).flatten(1, 2)


@torch.no_grad()
def published(tokens: Tensor, k: int) -> Tensor:
    """Medoids (rows, K), ascending, by the published formulation."""
    return torch.cat([_published_chunk(part, k) for part in tokens.split(SPLIT)])


def _published_chunk(x: Tensor, k: int, limit: int = 100, tol: float = 1e-6) -> Tensor:
    rows = torch.arange(len(x))
    d = torch.cdist(x, x)
    medoids = x.norm(dim=-1).argmax(1)[:, None]
    for _ in range(k - 1):
        nearest = d[rows[:, None], medoids].amin(1).scatter(1, medoids, -1.0)
        medoids = torch.cat([medoids, nearest.argmax(1)[:, None]], 1)
    shifted = d - (d.max() + 1)  # below 0, so that what the mask sets to 0 is never the smallest
    for _ in range(limit):
        near = shifted[rows[:, None], medoids]  # (rows, K, N)
        near = near.scatter_add(2, medoids[..., None], torch.full_like(near[..., :1], -1.0))
        mask = (
            torch.nn.functional.one_hot(near.argmin(1), k).transpose(1, 2).to(x.dtype)
        )  # (rows, K, N)
        masked = shifted[:, None].repeat(1, k, 1, 1) * (mask[:, :, :, None] * mask[:, :, None, :])
        new = masked.sum(-1).argmin(
            -1
        )  # each summed distance is lowered alike, so the order within a cluster stays
        moved = (x[rows[:, None], new] - x[rows[:, None], medoids]).norm(dim=-1).sum(1).mean()
        medoids = new
        if moved < tol:
            break
    return medoids.sort(1).values


def ours(tokens: Tensor, k: int) -> Tensor:
    return kmedoids(tokens, k, tol=1e-6).medoids


SIDES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "published formulation": published,
    "ours": ours,
}


def measure(side: str, case: int, repeats: int) -> tuple[float, float]:
    """(best CPU seconds, extra memory in MB) in this process, which must be fresh: its peak only
    ever grows.
    """
    rows, n, k = CASES[case]
    tokens, work = make_tokens(rows, n), SIDES[side]
    work(make_tokens(rows, n)[:1, :, :8], 2)  # what a first call allocates once is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work(tokens, k)
        seconds.append(time.process_time() - start)
    return min(seconds), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def in_fresh_process(side: str, case: int, repeats: int) -> tuple[float, float]:
    """`measure`, apart."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.models.clustering",
        "--side",
        side,
        "--case",
        str(case),
    ]
    made = subprocess.run(
        [*command, "--repeats", str(repeats)], capture_output=True, text=True, check=True
    )
    seconds, megabytes = map(float, made.stdout.split())
    return seconds, megabytes


def unchanged(work: Callable[[Tensor, int], Tensor]) -> tuple[float, float]:
    """Share of medoids that stay with 2e-6 relative noise on the tokens, and with rows clustered
    one at a time.
    """
    rows, n, k = CASES[0]
    tokens = make_tokens(rows, n)
    noise = 2e-6 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(1))
    reference = work(tokens, k)
    apart = torch.cat([work(row[None], k) for row in tokens])
    return tuple(
        float((other == reference).float().mean())
        for other in (work(tokens * (1 + noise), k), apart)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--side", choices=SIDES, help="measure one side of one case and print the two numbers"
    )
    parser.add_argument("--case", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.side:
        click.echo(" ".join(map(str, measure(args.side, args.case, args.repeats))))
        return
    names = (
        x.split(":")[1].strip()
        for x in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in x
    )
    click.echo(
        f"{next(names, platform.processor())}, 1 thread, torch {torch.__version__}; CPU seconds,"
        " extra memory\n"
    )
    click.echo(
        f"{'tokens -> medoids':<22}{'side':<24}{'ms':>10}{'MB':>9}{'faster':>9}{'memory':>9}"
    )
    for case, (rows, n, k) in enumerate(CASES):
        results = {
            s: in_fresh_process(s, case, 1 if n > 500 and s != "ours" else args.repeats)
            for s in SIDES
        }
        for side, (seconds, megabytes) in results.items():
            slow, large = results["published formulation"]
            gain = (
                f"{slow / seconds:>8.1f}x{f'1/{large / max(megabytes, 1e-9):.0f}':>9}"
                if side == "ours"
                else ""
            )
            click.echo(
                f"{f'[{rows}, {n}, {WIDTH}] -> {k}':<22}{side:<24}{1e3 * seconds:>10.1f}{megabytes:>9.0f}{gain}"
            )
    click.echo(f"\n{'medoids that stay, [24, 98] -> 49':<46}{'2e-6 noise':>12}{'one by one':>12}")
    for side, work in SIDES.items():
        noisy, apart = unchanged(work)
        click.echo(f"{side:<46}{noisy:>12.1%}{apart:>12.1%}")


if __name__ == "__main__":
    main()
