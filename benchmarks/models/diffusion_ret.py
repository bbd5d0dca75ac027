"""DiffusionRet: re-ranking by sampling, both directions, ViT-B/32 width, as published and as here.

The published side is a stand-in written from docs/specs/diffusionret.md, sections 5, 6, 8 and 15:
the whole network at every step (frame attention, projections, decoder), candidates copied by loops
over rows, scores added one element at a time, a normal tensor drawn and multiplied by 0 at every
step. Both sides get the same noise; everything that ours computes in advance is in its time. 1,000
x 1,000:
the stand-in is timed on two batches of 32 queries each way and scaled to 1,000.

Run: OMP_NUM_THREADS=1 python -m benchmarks.models.diffusion_ret [--threads 1]      (CPU seconds)
"""

import argparse
import math
import platform
import time
from collections.abc import Callable

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Fusion, Ranking
from models.diffusion_ret.denoiser import Denoiser
from models.diffusion_ret.fast_sampling import Features
from models.diffusion_ret.noising import NoiseSchedule, schedule
from models.diffusion_ret.reranking import (
    DenoisingStage,
    SamplingSettings,
    Way,
    best_candidates,
)
from models.parts.noise import KeyedNoise, keys

N, FRAMES, DIM, STEPS = 1000, 12, 512, 50
LIMITS = {"32 x 32": 7.0, "1 x 1,000": 9.0}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    machine = platform.processor() or platform.machine()
    click.echo(f"{machine}, {torch.get_num_threads()} thread, torch {torch.__version__}, float32")
    click.echo(
        f"{'queries x candidates':<22}{'direction':<11}{'published':>11}{'here':>9}{'faster':>9}{'difference':>12}"
    )
    world = _World()
    with torch.inference_mode():
        world.ours(32, 32, "t2v")  # warm
        for queries, candidates in ((32, 32), (1, N)):
            for direction in ("t2v", "v2t"):
                _row(world, queries, candidates, direction)
        _whole(world)


class _World:
    """1,000 texts and videos as features, their similarities, and denoisers whose weights are not
    near 0.
    """

    def __init__(self):
        random = torch.Generator().manual_seed(0)
        text, frames = (
            torch.randn(*shape, generator=random) * 0.35 for shape in ((N, DIM), (N, FRAMES, DIM))
        )
        real = torch.arange(FRAMES) < torch.randint(10, FRAMES + 1, (N, 1), generator=random)
        self.features = Features(text, frames, real)
        scores = torch.rand(N, N, generator=random)
        self.plain = Ranking(scores, scores.T)
        self.noise = KeyedNoise(
            0, keys([f"text {n}" for n in range(N)]), keys([f"video{n}" for n in range(N)])
        )
        torch.manual_seed(0)
        self.denoisers = {
            side: Denoiser(DIM).eval().requires_grad_(False) for side in ("t2v", "v2t")
        }
        for value in (
            value for denoiser in self.denoisers.values() for value in denoiser.parameters()
        ):
            value.mul_(2)

    def ours(self, queries: int, candidates: int, direction: str) -> Tensor:
        """The final scores of the first queries."""
        none, rows = np.zeros(0, np.int64), np.arange(queries)
        asked = {"t2v_rows": none, "v2t_rows": none, f"{direction}_rows": rows}
        way = Way(candidates)
        settings = SamplingSettings(diffusion_steps=STEPS, t2v=way, v2t=way)
        stage = DenoisingStage(self.denoisers["t2v"], self.denoisers["v2t"], settings)
        text, frames, real = self.features
        video = {"features": frames, "real": real}
        found = stage.rerank(self.plain, {"sentence": text}, video, Fusion(self.noise, **asked))
        return getattr(found, direction)[:queries]

    def published(self, first: int, queries: int, candidates: int, direction: str) -> Tensor:
        """The same for `queries` of them from `first` on, as one batch."""
        rows = torch.arange(first, first + queries)
        scores = getattr(self.plain, direction)[rows].clone()
        best = best_candidates(scores, candidates)
        noise = torch.from_numpy(self.noise.draw(direction, rows.numpy(), best.numpy()))
        gather = _candidate_videos if direction == "t2v" else _candidate_texts
        network = Published(self.denoisers[direction], direction)
        x = network.sample(schedule("cosine", STEPS), noise, *gather(self.features, rows, best))
        gain = F.softmax(x, dim=1)
        for row in range(queries):
            for place in range(candidates):
                scores[row, best[row, place]] += gain[row, place]
        return scores


class Published:
    """The network with nothing kept from one step to the next."""

    def __init__(self, denoiser: Denoiser, direction: str):
        self.d, self.direction = denoiser, direction

    def sample(
        self, plan: NoiseSchedule, x: Tensor, text: Tensor, frames: Tensor, mask: Tensor
    ) -> Tensor:
        for step in reversed(range(len(plan))):
            t = torch.full((len(x),), step)
            network = self.text_to_video if self.direction == "t2v" else self.video_to_text
            x0 = network(x, t, text, frames, mask).clamp(-1, 1)
            kept, before = plan.alphas_cumprod[step], plan.alphas_cumprod_prev[step]
            noise = (x * math.sqrt(1 / kept) - x0) / math.sqrt(1 / kept - 1)
            x = x0 * math.sqrt(before) + math.sqrt(1 - before) * noise + 0.0 * torch.randn_like(x)
        return x

    def text_to_video(
        self, x: Tensor, t: Tensor, text: Tensor, frames: Tensor, mask: Tensor
    ) -> Tensor:
        weight = F.softmax(torch.einsum("bd,bkvd->bkv", text, frames), dim=-1) * mask
        seen = torch.einsum("bkv,bkvd->bkd", weight, frames)
        return self._answer(x, t, text[:, None], seen)

    def video_to_text(
        self, x: Tensor, t: Tensor, text: Tensor, frames: Tensor, mask: Tensor
    ) -> Tensor:
        weight = F.softmax(torch.einsum("bkd,bvd->bkv", text, frames), dim=-1) * mask[:, None]
        return self._answer(x, t, torch.einsum("bkv,bvd->bkd", weight, frames), text)

    def _answer(self, x: Tensor, t: Tensor, query: Tensor, candidate: Tensor) -> Tensor:
        step = self.d.embed_timestep(t)[:, None]
        q, k, v = (
            self.d.q_proj(query + step),
            self.d.k_proj(candidate + step),
            self.d.v_proj(candidate + step),
        )
        attention = F.softmax((q * k).sum(-1) + x, dim=-1)
        found = self.d.proj(torch.einsum("bk,bkd->bd", attention, v))
        pair = torch.cat([found[:, None].expand(-1, candidate.shape[1], -1), candidate], dim=-1)
        return self.d.decoder(pair).squeeze(-1) + attention


def _candidate_videos(
    features: Features, rows: Tensor, best: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    frames = torch.stack([torch.stack([features.frames[place] for place in row]) for row in best])
    mask = torch.stack([torch.stack([features.real[place] for place in row]) for row in best])
    return features.text[rows], frames, mask.float()


def _candidate_texts(
    features: Features, rows: Tensor, best: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    text = torch.stack([torch.stack([features.text[place] for place in row]) for row in best])
    return text, features.frames[rows], features.real[rows].float()


def _row(world: _World, queries: int, candidates: int, direction: str) -> None:
    fast, found = _timed(world.ours, queries, candidates, direction)
    slow, expected = _timed(world.published, 0, queries, candidates, direction)
    name, difference = f"{queries} x {candidates:,}", float((found - expected).abs().max())
    limit = LIMITS[name]
    verdict = "" if slow / fast >= limit else f"   wanted {limit:g} x"
    click.echo(
        f"{name:<22}{direction:<11}{slow:9.2f} s{fast:7.3f} s{slow / fast:8.1f}"
        f" x{difference:12.1e}{verdict}"
    )


def _whole(world: _World) -> None:
    """1,000 x 1,000, the best 32 of each, both ways."""
    ways = ("t2v", "v2t")
    slow = (
        sum(_timed(world.published, first, 32, 32, way)[0] for way in ways for first in (32, 64))
        * N
        / 64
    )
    fast = sum(_timed(world.ours, N, 32, way)[0] for way in ways)
    click.echo(
        f"{'1,000 x 32':<22}{'both':<11}{slow:9.1f} s{fast:7.2f} s{slow / fast:8.1f}"
        f" x{'(scaled)':>12}"
    )


def _timed(run: Callable[..., Tensor], *arguments: object) -> tuple[float, Tensor]:
    start = time.process_time()
    result = run(*arguments)
    return time.process_time() - start, result


if __name__ == "__main__":
    main()
