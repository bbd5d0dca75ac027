"""Train a model by a recipe, or continue an interrupted run.

    python cli.py train --recipe drl --init ViT-B-32.pt --store frames \\
        --annotations captions.csv --out model

It writes checkpoints/best.pt (weights, recipe and vocabulary: it needs no other file),
checkpoints/last.pt (to continue from), metrics.jsonl and config.yaml. TensorBoard files and the
log hold times, so they lie in _state/ (tensorboard --logdir OUT/_state).
"""

from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, Field

from pipeline import __version__
from pipeline.core import stage
from pipeline.core.files import atomic_write, written
from pipeline.core.manifest import stage_fingerprint
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import STATE, digest, usable_records
from pipeline.errors import ConfigError
from pipeline.recipes.recipe import parse

if TYPE_CHECKING:
    import numpy as np
    import torch

    from models.base import RetrievalModel
    from pipeline.evaluation.retrieve import Result
    from pipeline.training.setup import Setup
    from pipeline.training.trainer import Trainer, Validate

# what of a corpus each need is read for; others are read in any case
_READ_FOR = {
    "features": {"features"},
    "store": {"frames"},
    "videos": {"frames"},
    "vocab": {"words"},
    "word_vectors": {"words"},
    "tags": {"tags"},
}


class Options(BaseModel, extra="forbid"):
    recipe: dict | str = Field(
        description=("name of a recipe, {extends: NAME, ...}, or {model, options, train}")
    )
    device: str = Field(
        "auto",
        pattern="^(auto|cpu|mps|cuda(:[0-9]+)?)$",
        description=("auto: the GPU, if there is one"),
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads, the same for the whole run  [physical cores, or OMP_NUM_THREADS]",
    )
    save_seconds: float = Field(
        300.0, gt=0, description="seconds between checkpoints within an epoch"
    )
    save_steps: int | None = Field(
        None, ge=1, description="steps between checkpoints within an epoch"
    )
    loader_threads: int | None = Field(
        None, ge=1, description="threads that read frames  [one per core, up to 8]"
    )
    tensorboard: bool = Field(True, description="write TensorBoard files below _state/")


class Stage(stage.Stage):
    needs = {
        "tensors": Need(
            "tensors", optional=True, help=("tensor cache of frames or features: the fastest")
        ),
        "features": Need(
            "features", optional=True, help="frame features, if there is no tensor cache"
        ),
        "store": Need(
            "frame_store", optional=True, help="frame store, if there is no tensor cache"
        ),
        "videos": Need(
            "video_files",
            optional=True,
            auto=False,
            help="video files, decoded at every step: the slowest",
        ),
        "annotations": Need("annotations"),
        "vocab": Need("vocab", optional=True, help="vocabulary, if the model reads words"),
        "tags": Need("tags", optional=True, help="tags of videos, if the model learns concepts"),
        "word_vectors": Need(
            "word_vectors", optional=True, help="first values of the word embedding"
        ),
        "init": Need(
            "checkpoint",
            optional=True,
            auto=False,
            help="weights to start from: a checkpoint, or a CLIP file",
        ),
    }
    makes = "checkpoint"
    runs = "inline"
    keeps = True
    is_seeded = True
    Options = Options
    references = {"recipe": "recipes"}
    indifferent = frozenset(
        {"device", "save_seconds", "save_steps", "tensorboard", "loader_threads"}
    )
    ranks = "all"

    @classmethod
    def wanted(cls, options: Options) -> dict[str, Need]:
        """Return the needs that the recipe's model reads."""
        try:
            reads = parse(options.recipe).reads
        except ConfigError:  # `mistakes` says it, with every other mistake of the recipe
            return cls.needs
        unread = {need for need, what in _READ_FOR.items() if not reads & what}
        return {need: spec for need, spec in cls.needs.items() if need not in unread}

    @classmethod
    def with_seed(cls, options: Options, place: int) -> tuple[Options, int]:
        """Return the options with the recipe's seed + `place`, and that seed."""
        recipe = options.recipe
        seed = parse(recipe).train.seed + place
        train = recipe.get("train", {}) | {"seed": seed}
        return options.model_copy(update={"recipe": recipe | {"train": train}}), seed

    @classmethod
    def mistakes(cls, options: Options, given: dict[str, list[str]] | None) -> list[str]:
        """Return every mistake of the recipe."""
        try:
            parse(options.recipe)
        except ConfigError as error:
            return [str(error)]
        return []

    def items(self) -> list[Item]:
        """Return one item, whose key is the content of the inputs."""
        parse(self.options.recipe)
        return [Item("train", digest(self._contents()))]

    def process(self, item: Item) -> Outcome:
        """Train to the end, from the beginning or from where an earlier run stopped."""
        from pipeline import processes
        from pipeline.feeding.inputs import choose_device
        from pipeline.training.progress import set_stale_aside
        from pipeline.training.setup import Setup

        recipe, world = parse(self.options.recipe), processes.World.of_environment()
        fingerprint = stage_fingerprint(self)
        if world.is_first and any(
            (r.step, r.key) == (fingerprint, item.key) for r in usable_records(self.out)
        ):
            # this very training was finished before, and is asked for again
            set_stale_aside(self.out)
        device = choose_device(self.options.device, world.local_rank)
        setup = Setup(recipe, self.inputs, self.out, world, self.options.loader_threads)
        processes.join(world, device, recipe.train.distributed.timeout_minutes)
        trainer = _trainer(self, setup, device, digest([fingerprint, item.key]))
        if world.is_first:
            config = {
                "recipe": recipe.resolve(),
                "run": trainer.describe(),
                "toolkit": __version__,
            }
            atomic_write(self.out / "config.yaml", yaml.safe_dump(config, allow_unicode=True))
        summary = trainer.fit()
        if not world.is_first:
            return Outcome()
        names = [
            *sorted((self.out / "checkpoints").glob("*.pt")),
            self.out / "metrics.jsonl",
            self.out / "config.yaml",
        ]
        outputs = {path.relative_to(self.out).as_posix(): written(path) for path in names}
        facts = {
            "epochs": summary.epochs,
            "steps": summary.steps,
            "skipped": summary.skipped,
            "best": summary.best,
        }
        return Outcome(outputs=outputs, facts=facts)

    def finish(self, records: list) -> dict:
        """Return how the training run ended, for the manifest."""
        return dict(records[0].facts) if records else {}

    def _contents(self) -> dict[str, str]:
        return {name: made.content for name, made in self.inputs.items() if made is not None}


def _trainer(stage: Stage, setup: "Setup", device: "torch.device", identity: str) -> "Trainer":
    from pipeline.checkpoints import partial
    from pipeline.training import moments
    from pipeline.training.progress import Conduct
    from pipeline.training.trainer import Trainer

    batches, init = setup.batches(pinned=device.type == "cuda"), stage.inputs.get("init")
    folder, start = stage.out / "checkpoints", init.path if init else None
    conduct = Conduct(
        identity,
        device,
        stage.options.threads,
        setup.world,
        name=stage.label,
        save_seconds=stage.options.save_seconds,
        save_steps=stage.options.save_steps,
        board=stage.out / STATE / "tensorboard" if stage.options.tensorboard else None,
        facts=setup.facts
        | partial.facts(setup.model, setup.recipe.train, start, folder)
        | ({"pruned": setup.model.pruned} if setup.model.pruned else {}),
        start=moments.read(start) if setup.recipe.train.init.go_on else None,
    )
    setup.advise()
    return Trainer(
        model=setup.model,
        recipe=setup.recipe,
        batches=batches,
        validate=_validation(setup),
        folder=stage.out,
        conduct=conduct,
    )


def _validation(setup: "Setup") -> "Validate | None":
    """Return a function of the model that ranks the selection split; scores are named as in
    options.METRICS, in percent.

    Every process encodes and scores its share; rank 0 alone counts, the others return nothing.
    """
    from pipeline.evaluation.encode import encode_corpus
    from pipeline.evaluation.retrieve import RankSettings, rankings, retrieve

    corpus, options, world = setup.selection(), setup.recipe.train.evaluation, setup.world
    if corpus is None:
        return None

    def validate(model: "RetrievalModel") -> dict[str, float]:
        model.eval()
        encoded = encode_corpus(model, corpus, options.batch_size, options.chunk, world)
        if not world.is_first:
            rankings(model, encoded, world=world)
            return {}
        result = retrieve(model, encoded, corpus.video_of, RankSettings(world=world))["none"]
        metrics = result.metrics
        by_map = setup.recipe.train.select.endswith("map")
        precisions = _average_precisions(result, corpus.video_of) if by_map else {}
        sides = {
            f"{s}_{k.lower()}": float(v)
            for s in ("t2v", "v2t")
            for k, v in metrics[s].items()
            if k[0] in "RM"
        }
        return sides | {"rsum": float(metrics["Rsum"])} | precisions

    return validate


def _average_precisions(result: "Result", video_of: "np.ndarray") -> dict[str, float]:
    """Mean average precision each way and their sum, in percent. A caption has one true video: 1 /
    its rank.
    """
    import numpy as np

    from pipeline.evaluation.metrics import count, mean_average_precision

    t2v = float(np.mean(100.0 / (1 + count(result.t2v, video_of).ranks())))
    v2t = 100.0 * mean_average_precision(result.v2t, video_of)
    return {"t2v_map": t2v, "v2t_map": v2t, "map": t2v + v2t}
