"""Open whatever a model can be: our checkpoint, a published one, or weights of a CLIP alone."""

from dataclasses import replace
from pathlib import Path

from models.base import RetrievalModel
from pipeline import config
from pipeline.checkpoints import model_file, published, torchscript
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.checkpoints.toolkit_file import MODEL, find_checkpoint
from pipeline.checkpoints.word_files import Files
from pipeline.errors import DataError
from pipeline.recipes.recipe import Recipe, parse


def open_any(
    path: Path, recipe: str = "", config_file: Path | None = None
) -> tuple[RetrievalModel, ModelInfo]:
    """A model in eval mode on the CPU, and what is known of it.

    A published file is imported as `import-checkpoint` does; weights of a CLIP become the mean of
    the frames (the zero-shot row of the papers). recipe: of such files, by its name (default: the
    published one of its system; a CLIP of any size). Raises DataError for anything else.
    """
    file = find_checkpoint(path)
    if file.suffix != ".safetensors" and not torchscript.is_program(file):
        try:
            return model_file.load_model(file)
        except DataError:
            if _is_ours(file):
                raise
    loaded = config.load(config_file)
    if published.is_clip(file):
        return published.clip_model(file, _zero_shot(loaded, recipe))
    info, weights = published.import_file(file, Files(), loaded, recipe)
    model = model_file.build_model(info.recipe, info.facts, init=weights).eval()
    return model, replace(info, inputs=model.inputs)


def _is_ours(file: Path) -> bool:
    value = read_archive(file, published=True)
    return isinstance(value, dict) and value.get("format") == MODEL


def _zero_shot(loaded: config.Config, recipe: str) -> Recipe:
    values = loaded.recipe(recipe or published.ZERO_SHOT)
    if not recipe:  # the file says of what size it is
        values = config.merge(values, {"options": {"backbone": "given"}})
    return parse(values)
