"""A small world for tests of evaluation: the demo's captions, features that show the attributes, a
trained model.
"""

import functools
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.checkpoints import model_file
from pipeline.core import runner
from pipeline.core.artefact import Artefact
from pipeline.core.plan import dataset_artefact
from pipeline.datasets import base as datasets
from pipeline.datasets.base import Annotations
from pipeline.feeding.corpus import Store, open_corpus
from pipeline.feeding.loader import TrainBatches
from pipeline.recipes.recipe import parse
from pipeline.stages.evaluate import Options, Stage
from pipeline.stores.big_file.reader import BigFile
from pipeline.stores.big_file.writer import BigFileWriter
from pipeline.text import vocab
from pipeline.text.encoder import TextEncoder
from pipeline.text.words import clean_words
from pipeline.training.progress import Conduct
from pipeline.training.trainer import Trainer

SMALL = {"rnn": 16, "kernels": [2, 3], "channels": 8}


@dataclass(frozen=True)
class World:
    """Folder, annotations with attributes, and the artefacts that an evaluation reads."""

    folder: Path
    annotations: Annotations
    inputs: dict
    home: tempfile.TemporaryDirectory


@functools.cache
def world() -> World:
    """Made once per test process; do not write into its folder."""
    home = tempfile.TemporaryDirectory(prefix="tvrkit-world-")  # removed when the process ends
    folder = Path(home.name)
    spec = {
        "type": "synthetic",
        "root": str(folder),
        "videos": {"train": 48, "val": 4, "test": 16},
        "seed": 3,
    }
    annotations = datasets.open_dataset(spec).load()
    _write_features(folder / "features", annotations)
    _train(folder / "train", annotations, folder / "features")
    inputs = {
        "checkpoints": [Artefact("checkpoint", folder / "train", "f1", "c1", "train")],
        "tensors": None,
        "features": Artefact("features", folder / "features", "f2", "c2", "features"),
        "annotations": dataset_artefact(spec, "annotations"),
    }
    return World(folder, annotations, inputs, home)


def evaluate(out: Path, inputs: dict | None = None, **options: object) -> dict:
    """Run the evaluate stage into `out` and return its manifest."""
    return runner.run(Stage(Options(**options), inputs or world().inputs, out), "evaluate", jobs=1)


def _write_features(folder: Path, annotations: Annotations) -> None:
    """Frames that show a video's attributes, some noise added; a few more frames for later
    videos.
    """
    values = sorted(
        {f"{k} {v}" for video in annotations.videos.values() for k, v in video.attributes.items()}
    )
    rng = np.random.default_rng(0)
    with BigFileWriter(folder, len(values)) as writer:
        for n, video in enumerate(annotations.videos.values()):
            shown = np.array(
                [
                    f"{k} {video.attributes.get(k)}" == value
                    for value in values
                    for k in [value.split()[0]]
                ]
            )
            rows = shown + 0.05 * rng.standard_normal((3 + n % 4, len(values)))
            writer.append(
                video.id,
                [f"{video.id}_{frame}" for frame in range(len(rows))],
                rows.astype(np.float32),
            )
        writer.finish(writer.videos)


def _train(folder: Path, annotations: Annotations, features: Path) -> None:
    words = Counter(
        word for caption in annotations.captions.values() for word in clean_words(caption.text)
    )
    vocabulary = vocab.build(words, min_count=1)
    file = BigFile.open(features)
    store = Store(file.read_video, file.videos.__contains__, file.dim)
    tags = [word for word, _ in words.most_common(12)]
    facts = {
        "vocabulary": dict(vocabulary.ids),
        "tags": tags,
        "feature_dim": file.dim,
        "word_dim": None,
    }

    def labels(video_ids: list[str]) -> np.ndarray:
        return np.array(
            [[t in annotations.videos[i].attributes.values() for t in tags] for i in video_ids],
            np.float32,
        )

    corpus = open_corpus(
        annotations, "train", store, TextEncoder("words", vocabulary=vocabulary), labels
    )
    train = {
        "epochs": 25,
        "batch_size": 32,
        "selection_split": "none",
        "optimizer": {"name": "adam", "lr": 5e-3},
    }
    options = {"latent_dim": 24, "video": SMALL, "text": SMALL | {"word_dim": 12}}
    recipe = parse(
        {
            "name": "small",
            "model": "dual_encoding",
            "options": options,
            "train": train | {"log_every": 5},
        }
    )
    torch.manual_seed(0)
    model = model_file.build_model(recipe, facts)
    batches = TrainBatches(corpus, 32, seed=0, drop_last=True)
    Trainer(model, recipe, batches, None, folder, Conduct("world", facts=facts)).fit()
