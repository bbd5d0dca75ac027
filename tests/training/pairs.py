"""A tiny contrastive model trained by one process or by several under torchrun; prints what rank 0
ends with.

torchrun --standalone --nproc-per-node 2 -m tests.training.pairs FOLDER [KEY=VALUE of the train
options as YAML ...]
"""

import sys
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from models.base import Inputs, RetrievalModel
from pipeline import processes
from pipeline.core import ranks, stop
from pipeline.feeding.loader import TrainBatches
from pipeline.training.progress import Conduct
from pipeline.training.trainer import Trainer
from tests.training import toy


class Pairs(RetrievalModel):
    """Means of words and of features in one space; symmetric cross entropy over the batch. No batch
    statistics.

    spare: with a parameter that has no part in the loss.
    """

    inputs = Inputs(text="words", video="features")

    def __init__(self, spare: bool = False):
        super().__init__()
        self.spare = nn.Parameter(torch.zeros(1)) if spare else None
        self.words, self.frames = nn.Embedding(toy.WORDS, 4), nn.Linear(toy.DIM, 4)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def encode_text(self, batch, shared=None) -> dict[str, Tensor]:
        return {"x": self.words(batch["text"]).mul(batch["text_mask"][..., None]).sum(1)}

    def encode_video(self, batch, shared=None) -> dict[str, Tensor]:
        return {"x": self.frames(batch["features"]).mul(batch["video_mask"][..., None]).sum(1)}

    def loss(self, text, video, batch) -> dict[str, Tensor]:
        scores = text["x"] @ video["x"].T * self.logit_scale.exp()
        own = torch.arange(len(scores))
        both = nn.functional.cross_entropy(scores, own) + nn.functional.cross_entropy(scores.T, own)
        return {"contrast": both, "loss": both}


def train(folder: Path, train: dict) -> None:
    spare = train.pop("spare", False)
    world, recipe = processes.World.of_environment(), toy.recipe(**train)
    torch.manual_seed(0)
    model = Pairs(spare)
    model.gather_rule = recipe.train.distributed.gather
    batches = TrainBatches(
        toy.corpus(), recipe.train.batch_size, seed=1, drop_last=True, world=world
    )
    processes.join(world, torch.device("cpu"), 1.0)
    with stop.handling():
        Trainer(
            model, recipe, batches, toy.score, folder, Conduct("pairs", threads=1, world=world)
        ).fit()


if __name__ == "__main__":
    train(
        Path(sys.argv[1]),
        {k: yaml.safe_load(v) for k, v in (a.split("=", 1) for a in sys.argv[2:])},
    )
    ranks.leave(0)
