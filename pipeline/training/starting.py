"""The weights that a training run starts from: first values, those of another checkpoint, or a
published CLIP file.

Nothing is taken silently: every weight that is to be taken must be there with its shape
(docs/specs/training-loop.md, section 4).
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from models.base import Mismatch, RetrievalModel
from models.parts.pruning import keep_zeros
from pipeline import log
from pipeline.checkpoints import clip_weights, finite, model_file, partial, safetensors, torchscript
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.toolkit_file import find_checkpoint
from pipeline.recipes.recipe import Recipe

_PREFIX = "clip."  # of CLIP's weights in every model that has one


def build(
    recipe: Recipe, facts: Mapping, init: Path | None, vectors: np.ndarray | None
) -> RetrievalModel:
    """Return the model of a recipe. init: a checkpoint, the folder of a train step, or a weight
    file of CLIP.

    `train.init` says what is taken of a checkpoint. Raises DataError or Mismatch if it does not
    fit.
    """
    if init is None:
        return model_file.build_model(recipe, facts, vectors=vectors)
    path = find_checkpoint(init)
    if not _is_ours(path):
        return model_file.build_model(recipe, facts, vectors=vectors, clip=clip_weights.read(path))
    start, options = partial.read_model(path), recipe.train.init
    finite.check(path, start["weights"])
    model = _TAKE[options.take](recipe, facts, start["weights"], vectors)
    pruned = start["facts"].get("pruned")
    if pruned and options.keep_zeros and options.take == "all":
        keep_zeros(model, pruned)
        log.info(
            f"train: {pruned['amount']:.0%} of the weights to start from were pruned, and stay zero"
        )
    return model


def _all(
    recipe: Recipe, facts: Mapping, weights: Mapping[str, Tensor], vectors: np.ndarray | None
) -> RetrievalModel:
    match = recipe.train.init.match
    if not match:
        try:
            return model_file.build_model(
                recipe, facts, init=weights, vectors=vectors, is_start=True
            )
        except Mismatch as error:
            has_clip = any(name.startswith(_PREFIX) for name in weights)
            more = " Where its CLIP alone will do: train.init: {take: clip}." * has_clip
            raise Mismatch(error.what, error.fix + more) from error
    model = model_file.build_model(recipe, facts, vectors=vectors)
    taken = {name: value for name, value in weights.items() if re.search(match, name)}
    _check(model, taken, match)
    model.load_state_dict(taken, strict=False)
    return model


def _clip(
    recipe: Recipe, facts: Mapping, weights: Mapping[str, Tensor], vectors: np.ndarray | None
) -> RetrievalModel:
    clip = {
        name.removeprefix(_PREFIX): value
        for name, value in weights.items()
        if name.startswith(_PREFIX)
    }
    if not clip:
        raise Mismatch(
            "there is no CLIP in the weights to start from", "Start from a model that has one."
        )
    return model_file.build_model(recipe, facts, vectors=vectors, clip=clip)


_TAKE = {"all": _all, "clip": _clip}


def _is_ours(path: Path) -> bool:
    """Return whether this toolkit wrote a file; of the others only weights of a CLIP can be started
    from.
    """
    if path.suffix == safetensors.SUFFIX:
        return safetensors.read_ours(path) is not None
    if torchscript.is_program(path):
        return False
    value = read_archive(path)
    return isinstance(value, dict) and isinstance(value.get("format"), str)


def _check(model: RetrievalModel, taken: Mapping[str, Tensor], match: str) -> None:
    own = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if re.search(match, name)
    }
    given = {name: tuple(value.shape) for name, value in taken.items()}
    faults = [f"missing: {name}" for name in own.keys() - given.keys()]
    faults += [f"unknown: {name}" for name in given.keys() - own.keys()]
    faults += [
        f"{n} is {given[n]}, the model has {own[n]}"
        for n in own.keys() & given.keys()
        if own[n] != given[n]
    ]
    if faults or not taken:
        shown = "; ".join(sorted(faults)[:6]) + ("; ..." if len(faults) > 6 else "")
        raise Mismatch(
            f"{len(faults):,} of the weights that {match!r} names do not fit: {shown}" if taken else
            f"none of the weights to start from matches {match!r}",
            "Correct train.init.match, or start from weights of a model with the same backbone.",
        )  # fmt: skip
