"""Train a retrieval model by a recipe; go on where an interrupted training stopped.

Out: checkpoints/best.pt (weights, recipe, vocabulary: loads alone), checkpoints/last.pt (to go on), metrics.jsonl and
config.yaml. TensorBoard files and the log hold times, so they lie in _state/ (tensorboard --logdir OUT/_state).
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from pydantic import BaseModel, Field

from pipeline import __version__, log
from pipeline.core import stage
from pipeline.core.files import atomic_write, written
from pipeline.core.manifest import stage_fingerprint
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import STATE, digest, usable_records
from pipeline.datasets import base as datasets
from pipeline.datasets.base import Annotations
from pipeline.errors import ConfigError, DataError
from pipeline.training.recipe import Recipe, parse

if TYPE_CHECKING:
    import torch

    from models.base import RetrievalModel
    from pipeline.training.corpus import Store
    from pipeline.training.distributed import World
    from pipeline.training.trainer import Trainer, Validate


class Options(BaseModel, extra="forbid"):
    recipe: dict | str = Field(description="a recipe of pipelines.yaml, or {model, options, train}")
    device: str = Field("auto", pattern="^(auto|cpu|cuda(:[0-9]+)?)$", description="auto: a GPU if there is one")
    threads: int | None = Field(
        None, ge=1, description="CPU threads (default: physical cores, or OMP_NUM_THREADS); kept when a run goes on"
    )
    save_seconds: float = Field(300.0, gt=0, description="seconds between checkpoints within an epoch")
    save_steps: int | None = Field(None, ge=1, description="steps between checkpoints within an epoch")
    tensorboard: bool = Field(True, description="write TensorBoard files below _state/")


class Stage(stage.Stage):
    needs = {
        "tensors": Need("tensors", optional=True, help="the tensor cache that feeds training"),
        "features": Need("features", optional=True, help="frame features, read where there is no tensor cache"),
        "annotations": Need("annotations"),
        "vocab": Need("vocab", optional=True, help="vocabulary, for models that read words"),
        "tags": Need("tags", optional=True, help="tags per video, for models that learn concepts"),
        "word_vectors": Need("word_vectors", optional=True, help="first values of the word embedding"),
        "init": Need("checkpoint", optional=True, auto=False, help="weights to start from"),
    }
    makes = "checkpoint"
    runs = "inline"
    Options = Options
    references = {"recipe": "recipes"}
    indifferent = frozenset({"device", "save_seconds", "save_steps", "tensorboard"})

    def items(self) -> list[Item]:
        """One item; its key is what the inputs hold."""
        parse(self.options.recipe)
        return [Item("train", digest(self._contents()))]

    def process(self, item: Item) -> Outcome:
        """Train, or go on training, to the end."""
        from pipeline.training import distributed
        from pipeline.training.inputs import choose_device

        recipe, world = parse(self.options.recipe), distributed.World.of_environment()
        fingerprint = stage_fingerprint(self)
        if world.is_first and any((r.step, r.key) == (fingerprint, item.key) for r in usable_records(self.out)):
            self._start_anew()  # this very training was finished before, and is asked for again
        device = choose_device(self.options.device, world.local_rank)
        with distributed.group(world, device, recipe.train.distributed.timeout_minutes):
            trainer = _trainer(self, recipe, world, device, digest([fingerprint, item.key]))
            if world.is_first:
                config = {"recipe": recipe.resolved(), "run": trainer.describe(), "toolkit": __version__}
                atomic_write(self.out / "config.yaml", yaml.safe_dump(config, allow_unicode=True))
            summary = trainer.fit()
        names = [*sorted((self.out / "checkpoints").glob("*.pt")), self.out / "metrics.jsonl", self.out / "config.yaml"]
        outputs = {path.relative_to(self.out).as_posix(): written(path) for path in names}
        facts = {"epochs": summary.epochs, "steps": summary.steps, "skipped": summary.skipped, "best": summary.best}
        return Outcome(outputs=outputs, facts=facts)

    def finish(self, records: list) -> dict:
        """How the training ended goes into the manifest."""
        return dict(records[0].facts) if records else {}

    def _paths(self) -> dict[str, Path | None]:
        return {name: made.path if made is not None else None for name, made in self.inputs.items()}

    def _contents(self) -> dict[str, str]:
        return {name: made.content for name, made in self.inputs.items() if made is not None}

    def _start_anew(self) -> None:
        shutil.rmtree(self.out / "checkpoints", ignore_errors=True)
        shutil.rmtree(self.out / STATE / "tensorboard", ignore_errors=True)


@dataclass(frozen=True)
class _Inputs:
    """Everything opened. labels: video ids -> soft tags. facts: what the model is built from, kept in best.pt."""

    annotations: Annotations
    store: "Store"
    encode: Callable[[list[str]], list[list[int]]]
    labels: Callable[[list[str]], np.ndarray] | None
    facts: dict
    vectors: np.ndarray | None


def _trainer(stage: Stage, recipe: Recipe, world: "World", device: "torch.device", identity: str) -> "Trainer":
    from pipeline.training.corpus import open_corpus
    from pipeline.training.loader import TrainBatches
    from pipeline.training.progress import Conduct
    from pipeline.training.trainer import Trainer

    options, inputs = recipe.train, _open(stage, recipe)
    model = _model(stage, recipe, inputs)
    corpus = open_corpus(
        inputs.annotations, "train", inputs.store, inputs.encode, inputs.labels if model.inputs.tags else None
    )
    batches = TrainBatches(
        corpus,
        options.batch_size * (world.size if options.batch_scope == "per_process" else 1),
        seed=options.seed,
        drop_last=options.drop_last,
        distinct_videos=options.distinct_videos,
        world=world,
        pinned=device.type == "cuda",
    )
    conduct = Conduct(
        identity,
        device,
        stage.options.threads,
        world,
        name=stage.out.name,
        save_seconds=stage.options.save_seconds,
        save_steps=stage.options.save_steps,
        board=stage.out / STATE / "tensorboard" if stage.options.tensorboard else None,
        facts=inputs.facts,
    )
    _advise(recipe, world.size)
    return Trainer(model, recipe, batches, _validation(recipe, inputs), stage.out, conduct)


def _open(stage: Stage, recipe: Recipe) -> _Inputs:
    from pipeline.text import tag_files, vocab
    from pipeline.training.corpus import encode_texts
    from pipeline.training.inputs import load_vectors, open_store

    paths = stage._paths()
    store = open_store(paths["tensors"], paths["features"])
    vocabulary = vocab.load(paths["vocab"]) if paths["vocab"] else None
    tags = tag_files.load(paths["tags"]) if paths["tags"] else None
    vectors = load_vectors(paths["word_vectors"]) if paths["word_vectors"] else None
    facts = {
        "feature_dim": int(store.dim),
        "vocabulary": dict(vocabulary.ids) if vocabulary else {},
        "tags": list(tags.words) if tags else [],
        "word_dim": None if vectors is None else int(vectors.shape[1]),
        "inputs": stage._contents(),
    }

    def encode(texts: list[str]) -> list[list[int]]:
        if vocabulary is None:
            raise ConfigError(f"{recipe.model} reads words", where="train", fix="Add a vocab step, or give --vocab.")
        return encode_texts(texts, vocabulary, recipe.train.clean_captions)

    return _Inputs(
        datasets.load(stage.inputs["annotations"]), store, encode, tags.matrix if tags else None, facts, vectors
    )


def _model(stage: Stage, recipe: Recipe, inputs: _Inputs) -> "RetrievalModel":
    import torch

    from models.base import Mismatch
    from pipeline.training import checkpoint

    init = stage._paths()["init"]
    weights = checkpoint.read_format(checkpoint.find(init), checkpoint.MODEL)["weights"] if init else None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.train.seed)
            model = checkpoint.build_model(recipe, inputs.facts, init=weights, vectors=inputs.vectors)
    except Mismatch as error:
        raise DataError(error.what, where=f"train: recipe {recipe.name}", fix=error.fix) from error
    if (model.inputs.text, model.inputs.video) != ("words", "features"):
        raise ConfigError(
            f"{recipe.model} reads {model.inputs.text} and {model.inputs.video}; there is no loader for them",
            where=f"train: recipe {recipe.name}",
            fix="Choose a model that reads words and features.",
        )
    model.gather_rule = recipe.train.distributed.gather
    return model


def _validation(recipe: Recipe, inputs: _Inputs) -> "Validate | None":
    """A function of the model that ranks the selection split; scores are named as in options.METRICS, in percent."""
    from pipeline.evaluation.encode import encode_corpus
    from pipeline.evaluation.retrieve import retrieve
    from pipeline.training.corpus import open_corpus

    split, options = recipe.train.selection_split, recipe.train.evaluation
    if split == "none":
        return None
    if split not in inputs.annotations.splits:
        raise ConfigError(
            f"there is no split {split!r} to select the best weights by, only {', '.join(inputs.annotations.splits)}",
            where="train.selection_split",
            fix="Name another one, or none to keep the last weights.",
        )
    corpus = open_corpus(inputs.annotations, split, inputs.store, inputs.encode)

    def validate(model: "RetrievalModel") -> dict[str, float]:
        model.eval()
        encoded = encode_corpus(model, corpus, options.batch_size, options.chunk)
        metrics = retrieve(model, encoded, corpus.video_of)["none"].metrics
        sides = {f"{s}_{k.lower()}": float(v) for s in ("t2v", "v2t") for k, v in metrics[s].items() if k[0] in "RM"}
        return sides | {"rsum": float(metrics["Rsum"])}

    return validate


def _advise(recipe: Recipe, processes: int) -> None:
    """Say what the recipe asks for that a reader of its results should know."""
    options, name = recipe.train, f"recipe {recipe.name}"
    if options.selection_split == "test":
        log.warning(f"{name}: the best weights are selected on the test split, so its scores there are optimistic")
    if options.expected_processes not in (None, processes):
        log.warning(f"{name}: published with {options.expected_processes} processes, this run has {processes}")
    if options.accumulation > 1:
        log.warning(
            f"{name}: {options.accumulation} accumulated batches are not one larger batch for contrastive losses"
        )
