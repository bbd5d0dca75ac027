"""A system around the weights of a CLIP, never trained: for zero-shot evaluation and search."""

from pathlib import Path

from models.base import Mismatch, RetrievalModel
from pipeline.checkpoints import clip_weights, model_file
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.errors import DataError
from pipeline.recipes.recipe import Recipe


def clip_model(file: Path, recipe: Recipe) -> tuple[RetrievalModel, ModelInfo]:
    """Return the model of a recipe around a CLIP file, in eval mode. Raises DataError for what is
    no CLIP, or another size than the recipe names.
    """
    facts = {"feature_dim": 0, "vocabulary": {}, "tags": [], "word_dim": None, "inputs": {}}
    try:
        model = model_file.build_model(recipe, facts, clip=clip_weights.read(file))
    except Mismatch as error:
        raise DataError(error.what, where=file, fix=error.fix) from error
    return model.eval(), ModelInfo(recipe, facts, {"imported": file.name}, model.inputs)
