"""A small training run for the tests: Dual Encoding++ on random features. Run as a program, it
trains into a folder.

python -m tests.training.toy FOLDER [SAVE_STEPS]
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.checkpoints import model_file
from pipeline.feeding.corpus import Corpus, FeatureVideos
from pipeline.feeding.loader import TrainBatches
from pipeline.processes import World
from pipeline.recipes.recipe import Recipe, parse
from pipeline.text.sentences import Sentences
from pipeline.training.progress import Conduct
from pipeline.training.trainer import Trainer

WORDS, TAGS, DIM = 30, 5, 8
SMALL = {"rnn": 6, "kernels": [2, 3], "channels": 4}
FACTS = {
    "vocabulary": {f"word{n}": n for n in range(WORDS)},
    "tags": [f"tag{n}" for n in range(TAGS)],
    "feature_dim": DIM,
    "word_dim": None,
}


def corpus(n_videos: int = 20, n_captions: int = 50) -> Corpus:
    rng = np.random.default_rng(0)
    features = {
        f"video{n}": rng.standard_normal((rng.integers(2, 9), DIM)).astype(np.float32)
        for n in range(n_videos)
    }
    captions = [rng.integers(4, WORDS, rng.integers(2, 7)).tolist() for _ in range(n_captions)]
    ids = list(features)
    return Corpus(
        [f"caption{n}" for n in range(n_captions)],
        ids,
        rng.integers(0, n_videos, n_captions),
        Sentences(captions),
        FeatureVideos(features.__getitem__, ids, DIM),
        rng.random((n_videos, TAGS)).astype(np.float32),
    )


def recipe(**train: object) -> Recipe:
    values = {"epochs": 3, "batch_size": 12, "select": "rsum", "log_every": 2, "drop_last": False}
    values |= {"optimizer": {"name": "adam", "lr": 1e-2}}
    options = {"latent_dim": 6, "video": SMALL, "text": SMALL | {"word_dim": 7}}
    return parse(
        {"name": "toy", "model": "dual_encoding", "options": options, "train": values | train}
    )


def score(model: nn.Module) -> dict[str, float]:
    """Stands for a validation: some number that depends on every weight."""
    with torch.no_grad():
        return {"rsum": float(sum(p.abs().sum() for p in model.parameters())) % 10}


def trainer(
    folder: Path,
    *,
    validate: Callable | None = score,
    data: Corpus | None = None,
    world: World = World(),
    identity: str = "toy",
    save_steps: int | None = None,
    **train: object,
) -> Trainer:
    chosen = recipe(**train)
    options = chosen.train
    torch.manual_seed(0)
    model = model_file.build_model(chosen, FACTS)
    batches = TrainBatches(
        data or corpus(),
        options.batch_size,
        seed=options.seed,
        drop_last=options.drop_last,
        world=world,
    )
    conduct = Conduct(identity, threads=1, world=world, save_steps=save_steps, facts=FACTS)
    return Trainer(model, chosen, batches, validate, folder, conduct)


if __name__ == "__main__":
    from pipeline.core import stop

    with stop.handling():
        trainer(
            Path(sys.argv[1]), save_steps=int(sys.argv[2]) if len(sys.argv) > 2 else None, epochs=8
        ).fit()
