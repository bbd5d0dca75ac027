"""Dual Encoding++ at published size: a training step and scoring, ours against the published
scheme.

The stand-in is written from docs/specs/dual-encoding.md, section 2: one-hot bags of words,
convolutions over the padded batch, dense (B, B, tags) minima and maxima, concept heads run twice,
Adam one tensor at a time.

Run: OMP_NUM_THREADS=1 python -m benchmarks.models.dual_encoding      (about a minute; CPU seconds
of one thread)
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.base import Assets
from models.dual_encoding.model import build
from models.dual_encoding.options import Options
from models.dual_encoding.published import export_checkpoint
from models.parts.interaction import jaccard

N_WORDS, N_TAGS, FEATURE_DIM, BATCH = 7811, 512, 4096, 128


class PublishedSide(nn.Module):
    """Levels 2 and 3 of one encoder."""

    def __init__(self, dim: int, kernels: list[int]):
        super().__init__()
        self.rnn_embedding = nn.ModuleDict(
            {"rnn": nn.GRU(dim, 512, batch_first=True, bidirectional=True)}
        )
        blocks = [
            nn.Sequential(nn.Conv1d(1024, 512, k, padding="same"), nn.ReLU()) for k in kernels
        ]
        self.cnn_embedding = nn.ModuleDict({"cnns": nn.ModuleList(blocks)})

    def forward(self, x: Tensor, lengths: Tensor) -> list[Tensor]:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        hidden = pad_packed_sequence(self.rnn_embedding["rnn"](packed)[0], batch_first=True)[0]
        responses = torch.cat(
            [block(hidden.transpose(1, 2)) for block in self.cnn_embedding["cnns"]], 1
        )
        return [hidden.sum(1) / x.shape[1], responses.max(2)[0]]


class PublishedHead(nn.Module):
    def __init__(self, width: int, out: int):
        super().__init__()
        self.linear, self.dropout, self.batch_norm = (
            nn.Linear(width, out),
            nn.Dropout(0),
            nn.BatchNorm1d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.batch_norm(self.dropout(self.linear(x)))


class Published(nn.Module):
    """The whole published model, with its parameter names."""

    def __init__(self):
        super().__init__()
        self.video_encoder = PublishedSide(FEATURE_DIM, [2, 3, 4, 5])
        self.text_encoder = PublishedSide(500, [2, 3, 4])
        self.text_encoder.embedding = nn.Embedding(N_WORDS, 500, padding_idx=0)
        widths = {"video_projection": 7168, "text_projection": N_WORDS + 1024 + 1536}
        self.space_lat = nn.ModuleDict(
            {side: PublishedHead(width, 1536) for side, width in widths.items()}
        )
        self.space_con = nn.ModuleDict(
            {side: PublishedHead(width, N_TAGS) for side, width in widths.items()}
        )

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        frames, words = batch["features"], batch["text"]
        n_frames, n_words = batch["video_mask"].sum(1), batch["text_mask"].sum(1)
        video = torch.cat(
            [frames.sum(1) / n_frames[:, None], *self.video_encoder(frames, n_frames)], 1
        )
        bag = F.one_hot(words, N_WORDS).float().sum(1)
        bag[:, 0] = 0
        text = torch.cat([bag, *self.text_encoder(self.text_encoder.embedding(words), n_words)], 1)
        v, t = self.space_lat["video_projection"](video), self.space_lat["text_projection"](text)
        cosines = F.normalize(v) @ F.normalize(t).T
        logits = [
            self.space_con["video_projection"](video),
            self.space_con["text_projection"](text),
        ]
        tags = sum(F.binary_cross_entropy_with_logits(x, batch["tags"]) for x in logits)
        p = torch.sigmoid(self.space_con["video_projection"](video))
        q = torch.sigmoid(self.space_con["text_projection"](text))
        shared = dense_jaccard(p, q)
        return {
            "loss": (
                hardest(cosines) + hardest(cosines.T) + tags + hardest(shared) + hardest(shared.T)
            )
        }


def dense_jaccard(p: Tensor, q: Tensor) -> Tensor:
    return torch.minimum(p[:, None], q[None]).sum(2) / torch.maximum(p[:, None], q[None]).sum(2)


def hardest(scores: Tensor) -> Tensor:
    costs = (0.2 + scores - scores.diagonal()[:, None]).clamp(min=0)
    return costs.fill_diagonal_(0).topk(1, dim=1)[0].mean()


def make_batch(rng: np.random.Generator) -> dict[str, Tensor]:
    """Clips of 10 to 20 s at two frames per second; captions of 4 to 25 words."""
    n_frames = rng.integers(20, 41, BATCH)
    n_words = np.clip(rng.poisson(10, BATCH) + 2, 4, 25)
    frames = torch.zeros(BATCH, n_frames.max(), FEATURE_DIM)
    words = torch.zeros(BATCH, n_words.max(), dtype=torch.long)
    for row, (f, w) in enumerate(zip(n_frames, n_words, strict=True)):
        frames[row, :f] = torch.from_numpy(
            rng.standard_normal((f, FEATURE_DIM), np.float32)
        ).relu_()
        words[row, :w] = torch.from_numpy((4 + (N_WORDS - 4) * rng.random(w) ** 4).astype(np.int64))
    return {
        "features": frames,
        "video_mask": torch.arange(frames.shape[1]) < torch.from_numpy(n_frames)[:, None],
        "text": words,
        "text_mask": words > 0,
        "tags": torch.from_numpy(rng.random((BATCH, N_TAGS), np.float32) ** 20),
    }


def models() -> dict[str, nn.Module]:
    """The published scheme and ours, twice, all with the same weights."""
    torch.manual_seed(0)
    sides = {"video": {"dropout": 0}, "text": {"dropout": 0}}  # so that the losses can be compared
    parity = Options(pooling="padded", scaling="shifted_max", concept_double_pass=True, **sides)
    assets = Assets(N_WORDS, N_TAGS, FEATURE_DIM)
    ours = {
        "ours, parity options": build(parity, assets),
        "ours, default options": build(Options(**sides), assets),
    }
    weights = ours["ours, parity options"].state_dict()
    ours["ours, default options"].load_state_dict(weights)
    published = Published()
    published.load_state_dict(export_checkpoint(parity, weights)["state_dict"])
    return {"published scheme": published, **ours}


def training_step(
    model: nn.Module, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> float:
    optimizer.zero_grad()
    loss = model(batch)["loss"]
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 2.0)
    optimizer.step()
    return loss.item()


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def training(repeats: int) -> list[tuple[str, float, float]]:
    """(name, CPU seconds per step, loss of the last step); sides take turns, the first step of each
    is not timed.
    """
    batch = make_batch(np.random.default_rng(1))
    frames, words = batch["video_mask"].sum(1).float(), batch["text_mask"].sum(1).float()
    click.echo(
        f"batch {BATCH}: {frames.mean():.1f} frames (longest {frames.max():.0f}),"
        f" {words.mean():.1f} words, dropout 0"
    )
    sides = models()
    optimizers = {
        name: torch.optim.Adam(
            m.parameters(),
            lr=1e-4,
            **({"foreach": False} if "published" in name else {"fused": True}),
        )
        for name, m in sides.items()
    }
    seconds, losses = {name: [] for name in sides}, {}
    for _ in range(repeats + 1):
        for name, model in sides.items():
            start = time.process_time()
            losses[name] = training_step(model, batch, optimizers[name])
            seconds[name].append(time.process_time() - start)
    return [(name, statistics.median(values[1:]), losses[name]) for name, values in seconds.items()]


def scoring(n_videos: int, n_captions: int) -> list[tuple[str, float, float]]:
    """(name, CPU seconds, largest difference); the dense side does a fifth of the captions, times
    five.
    """
    rng = torch.Generator().manual_seed(0)
    p, q = (
        torch.sigmoid(2 * torch.randn(n, N_TAGS, generator=rng) - 3) for n in (n_videos, n_captions)
    )
    part = n_captions // 5
    dense = torch.empty(n_videos, part)

    def published() -> None:
        for start in range(0, part, 1000):
            dense[:, start : start + 1000] = dense_jaccard(p, q[start : start + 1000])

    dense_seconds = 5 * cpu_seconds(published)
    ours = torch.empty(0)

    def blocked() -> None:
        nonlocal ours
        ours = jaccard(p, q)

    ours_seconds = min(cpu_seconds(blocked) for _ in range(2))
    return [
        ("dense Jaccard", dense_seconds, 0.0),
        ("ours, blocked", ours_seconds, float((ours[:, :part] - dense).abs().max())),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2, help="timed training steps of each side")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    name = next(
        (
            x.split(":")[1].strip()
            for x in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in x
        ),
        "",
    )
    click.echo(f"{name or platform.processor()}, 1 thread, torch {torch.__version__}; CPU seconds")
    rows = training(repeats)
    click.echo(f"\n{'training step':<26}{'seconds':>9}{'speed':>9}{'loss of last step':>20}")
    for name, seconds, loss in rows:
        click.echo(f"{name:<26}{seconds:>9.2f}{rows[0][1] / seconds:>8.2f}x{loss:>20.6f}")
    rows = scoring(500, 10_000)
    click.echo(
        f"\n{'concept scores 500 x 10,000':<28}{'seconds':>9}{'speed':>9}{'max abs diff':>16}"
    )
    for name, seconds, difference in rows:
        click.echo(f"{name:<28}{seconds:>9.2f}{rows[0][1] / seconds:>8.1f}x{difference:>16.1e}")


if __name__ == "__main__":
    main()
