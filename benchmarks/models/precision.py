"""Encoding in bfloat16 against float32: the time at ViT-B/32, and what it does to recall.

Time: the vision tower on 24 frames, untrained weights; `float32, torch` multiplies by torch's own
products, where ours choose others (models/parts/matmul.py). Recall: a tiny CLIP trained here on
drawn clips of the demo's kind, its test split ranked with encodings of either precision;
combinations of the test split never occur in training. Clips are ranked without their time
reversals: the mean of the frames is the same for both, so that rounding would break the ties.

Run: OMP_NUM_THREADS=1 python -m benchmarks.models.precision      (under a minute; CPU seconds of
one thread, best of three)
"""

import argparse
import platform
import time
from collections.abc import Callable
from unittest.mock import patch

import click
import numpy as np
import torch
from torch import Tensor

from models.base import Assets
from models.centerclip.model import CenterCLIP, build
from models.centerclip.options import Options
from models.clip.sizes import BACKBONES, OPENAI
from models.clip.towers import VisionTransformer
from models.parts import matmul
from pipeline.datasets.parts import draw
from pipeline.datasets.synthetic import Dataset
from pipeline.datasets.synthetic import Options as Corpus
from pipeline.evaluation.encode import in_precision
from pipeline.evaluation.metrics import count
from pipeline.text.encoder import TextEncoder

FRAMES, SIDE, WORDS, BATCH = 6, 64, 24, 48
CPU = torch.device("cpu")


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """CPU seconds, the least of all repeats."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def times(n_frames: int) -> dict[str, float]:
    torch.manual_seed(0)
    tower = VisionTransformer(BACKBONES["ViT-B/32"], OPENAI).eval()
    frames = torch.randint(0, 256, (n_frames, 224, 224, 3), dtype=torch.uint8)
    found = {}
    with torch.inference_mode():
        for kind in ("float32", "bfloat16"):
            with in_precision(kind, CPU):
                found[kind] = seconds(lambda: tower(frames))
        if matmul.mkl_is_slow():
            with patch.object(matmul, "mkl_is_slow", lambda: False):
                found["float32, torch"] = seconds(lambda: tower(frames))
    return found


def drawn(split: str, corpus: Dataset, model: CenterCLIP, every: int = 1) -> dict[str, Tensor]:
    """A split, or one clip in `every`: text (N, L), row (N,) of each caption's video, frames (V, T,
    S, S, 3).
    """
    annotations, clips = corpus.load(), {clip.id: clip for clip in corpus.clips()}
    ids = annotations.split(split).video_ids[::every]
    texts = [caption for caption in annotations.texts(split) if caption.video_id in set(ids)]
    tokens = TextEncoder("clip_bpe", model.inputs.tokens).ids([caption.text for caption in texts])
    text = torch.zeros(len(texts), WORDS, dtype=torch.int64)
    for row, sentence in zip(text, tokens, strict=True):
        row[: len(sentence)] = torch.tensor(sentence[:WORDS])
    pictures = [list(draw.frames(clips[i].scene, FRAMES, SIDE, SIDE)) for i in ids]
    rows = {i: n for n, i in enumerate(ids)}
    return {
        "text": text,
        "row": torch.tensor([rows[caption.video_id] for caption in texts]),
        "frames": torch.from_numpy(np.array(pictures)),
    }


def trained(model: CenterCLIP, data: dict[str, Tensor], epochs: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    steps = epochs * (len(data["text"]) // BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(data["text"]))[: len(data["text"]) // BATCH * BATCH].split(
            BATCH
        ):
            frames = data["frames"][data["row"][rows]]
            optimizer.zero_grad()
            mask = torch.ones(BATCH, FRAMES, dtype=torch.bool)
            model({"text": data["text"][rows], "frames": frames, "video_mask": mask})[
                "loss"
            ].backward()
            optimizer.step()
            rates.step()
    model.eval()


@torch.inference_mode()
def ranks(model: CenterCLIP, data: dict[str, Tensor], precision: str) -> np.ndarray:
    """Of each caption's own video, from 0."""
    mask = torch.ones(data["frames"].shape[:2], dtype=torch.bool)
    with in_precision(precision, CPU):
        text = model.encode_text({"text": data["text"]})
        video = model.encode_video({"frames": data["frames"], "video_mask": mask})
    return count(model.score(text, video)["similarity"].numpy(), data["row"].numpy()).ranks()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15, help="of the tiny CLIP")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cpu = torch.cpu.get_capabilities()
    has = (
        ", ".join(name for name in ("amx_bf16", "avx512_bf16") if cpu.get(name))
        or "no bfloat16 instructions"
    )
    click.echo(
        f"{cpu.get('cpu_name', platform.machine())} ({has}), torch {torch.__version__}, 1 thread\n"
    )
    found = times(24)
    half = found["bfloat16"]
    click.echo(f"{'ViT-B/32, 24 frames':<24}{'seconds':>10}{'bfloat16 is faster by':>24}")
    for name, value in sorted(found.items()):
        click.echo(f"{name:<24}{value:>10.2f}{'' if value == half else f'{value / half:.2f}x':>24}")
    click.echo(
        "goal: 2.5x on a processor with AMX; without it float32 has half the peak of bfloat16, so"
        " 2x bounds it\n"
    )
    torch.manual_seed(0)
    model = build(Options(backbone="tiny", frames=FRAMES, words=WORDS), Assets())
    corpus = Dataset(Corpus())
    trained(model, drawn("train", corpus, model), args.epochs)
    test = drawn("test", corpus, model, every=2)
    both = {kind: ranks(model, test, kind) for kind in ("float32", "bfloat16")}
    click.echo(f"{'text -> video':<24}{'R@1':>10}{'R@5':>10}{'R@10':>10}{'mean rank':>12}")
    for kind, found in both.items():
        recall = "".join(f"{100 * np.mean(found < k):>10.1f}" for k in (1, 5, 10))
        click.echo(f"{kind:<24}{recall}{1 + found.mean():>12.2f}")
    moved = both["bfloat16"] - both["float32"]
    chance = 100 / len(test["frames"])
    click.echo(
        f"{len(moved)} captions, {len(test['frames'])} clips (chance R@1 {chance:.1f}); "
        f"{np.mean(moved != 0):.1%} of the ranks differ, by {np.abs(moved).max()} at most"
    )


if __name__ == "__main__":
    main()
