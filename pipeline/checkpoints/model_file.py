"""The checkpoint of a model: weights, the resolved recipe, and what else it is built from.

`best.pt` is a torch archive of tensors and plain containers in the format `tvrkit/model`.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from models.base import Assets, Inputs, Mismatch, RetrievalModel
from pipeline import __version__, config, registry
from pipeline.checkpoints import finite, partial, safetensors, sparse
from pipeline.checkpoints.archive_writer import write_archive
from pipeline.checkpoints.toolkit_file import MODEL, VERSION, find_checkpoint
from pipeline.errors import ConfigError, DataError
from pipeline.recipes.recipe import Recipe, parse
from pipeline.text import vocab
from pipeline.text.encoder import TextEncoder
from pipeline.text.vocab import Vocabulary


@dataclass(frozen=True)
class ModelInfo:
    """What best.pt says besides the weights.

    facts: what the model was built from and trained on: vocabulary {word: id}, bag (the same of
    bags of words, where they have their own), tags (words in order), feature_dim, word_dim, pruned,
    digests of the inputs. training: epoch, step, scores and which weights (raw or ema) these are.
    inputs: what the model reads; None until it is built.
    """

    recipe: Recipe
    facts: dict
    training: dict
    inputs: Inputs | None = None

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of its captions, that of its bags behind it, or None for a model that
        needs none.
        """
        words = _vocabulary(self.facts, "vocabulary")
        bag = _vocabulary(self.facts, "bag")
        return vocab.joined(words, bag) if words else None

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """What turns captions or queries into tokens, exactly as in training."""
        inputs = self.inputs or Inputs("words", "features")
        clean = self.recipe.train.clean_captions
        return TextEncoder(inputs.text, inputs.tokens, self.vocabulary, clean)


def load_model(path: Path, changes: Sequence[str] = ()) -> tuple[RetrievalModel, ModelInfo]:
    """Return the model of a best.pt (or of the folder of a train step), on the CPU, in eval mode.
    Needs no other file.

    changes: of its recipe, "options.frames=24" each. Raises DataError for what is no such file, or
    holds weights that do not fit its recipe, and ConfigError for changes that are none.
    """
    path = find_checkpoint(path)
    value = partial.read_model(path)
    recipe = _changed(value["recipe"], changes) if changes else value["recipe"]
    try:
        finite.check(path, value["weights"])
        parsed = parse(recipe)
        info = ModelInfo(parsed, value["facts"], value["training"])
        model = build_model(parsed, info.facts, init=value["weights"])
        info = replace(info, inputs=model.inputs)
    except Mismatch as error:
        raise DataError(error.what, where=path, fix=error.fix) from error
    except (ConfigError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"its recipe cannot be used here: {error}",
            where=path,
            fix="Use the version of the toolkit that wrote it, or train again.",
        ) from error
    return model.eval(), info


def _changed(recipe: object, changes: Sequence[str]) -> dict:
    """Return a recipe with some of its fields changed. Raises ConfigError for what is no field."""
    if not isinstance(recipe, dict):
        raise ConfigError("the recipe of this checkpoint has no fields", where="--set")
    changed = copy.deepcopy(recipe)
    for change in changes:
        field = change.partition(".")[0]
        if field not in ("options", "train"):
            raise ConfigError(
                f"{field!r} is no part of a recipe",
                where=f"--set {change}",
                fix="Name a field of its options or of train: options.frames=24.",
            )
        config.assign(changed, change, "--set")
    parse(changed)
    return changed


def write_model(path: Path, info: ModelInfo, weights: Mapping[str, Tensor]) -> None:
    """Save a checkpoint that `load_model` reads. Of a pruned model (facts["pruned"]) only what is
    not zero is stored.

    What facts["backbone"] says to lie in another file is left out (`partial`).
    """
    facts, weights = partial.without(path, info.facts, weights)
    weights = sparse.packed(weights) if facts.get("pruned") else weights
    head = {"format": MODEL, "version": VERSION, "toolkit": __version__}
    body = {
        "recipe": info.recipe.resolve(),
        "facts": facts,
        "training": info.training,
        "weights": weights,
    }
    write_archive(path, head | body)


def write_safetensors(path: Path, checkpoint: Path) -> None:
    """Save a checkpoint with all its weights as one .safetensors file, which `load_model` reads.
    Raises DataError as `load_model`.
    """
    model, info = load_model(checkpoint)
    facts = {name: value for name, value in info.facts.items() if name != partial.KEY}
    head = {"format": MODEL, "version": VERSION, "toolkit": __version__}
    body = {"recipe": info.recipe.resolve(), "facts": facts, "training": info.training}
    safetensors.write_ours(path, head | body, model.state_dict())


def build_model(
    recipe: Recipe,
    facts: Mapping,
    *,
    init: Mapping | None = None,
    vectors: np.ndarray | None = None,
    clip: Mapping | None = None,
    is_start: bool = False,
) -> RetrievalModel:
    """Return a model from its recipe and the facts of its data.

    init: a state dict of it (is_start: or of its stage before); clip: one of a CLIP, for its
    backbone; vectors:
    (n_words, dim) float32.

    Raises models.base.Mismatch if they do not fit each other.
    """
    words, bag, dim = (
        _vocabulary(facts, "vocabulary"),
        _vocabulary(facts, "bag"),
        facts.get("word_dim"),
    )
    n_words = len(words) if words else 0
    if vectors is None and dim:
        vectors = np.zeros(
            (n_words, dim), np.float32
        )  # only its shape matters: `init` holds the values
    assets = Assets(
        n_words=n_words,
        bag_columns=vocab.bag_columns(words, bag) if words and bag else None,
        n_tags=len(facts.get("tags", ())),
        feature_dim=facts.get("feature_dim", 0),
        word_vectors=vectors,
        init=init,
        clip=clip,
        is_start=is_start,
    )
    return registry.find("model", recipe.model).build(recipe.options, assets)


def _vocabulary(facts: Mapping, name: str) -> Vocabulary | None:
    return Vocabulary(facts[name]) if facts.get(name) else None
