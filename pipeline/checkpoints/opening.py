"""Open whatever a model can be: our checkpoint, a published one, or weights of a CLIP alone."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from models.base import RetrievalModel
from pipeline import config
from pipeline.checkpoints import model_file, safetensors, torchscript
from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.clip_model import clip_model
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.checkpoints.toolkit_file import MODEL, find_checkpoint
from pipeline.checkpoints.word_files import Files
from pipeline.errors import ConfigError
from pipeline.recipes.recipe import Recipe, parse

Kind = Literal["ours", "clip", "published"]


def kind_of_weights(path: Path) -> Kind:
    """Whose weights a file holds. Raises DataError for what cannot be read."""
    file = find_checkpoint(path)
    if file.suffix == safetensors.SUFFIX:
        if safetensors.read_ours(file) is not None:
            return "ours"
    elif not torchscript.is_program(file):
        value = read_archive(file, published=True)
        if isinstance(value, dict) and value.get("format") == MODEL:
            return "ours"
    from pipeline.checkpoints import published  # it imports every system

    return "clip" if published.is_clip(file) else "published"


def open_any(path: Path, kind: Kind, recipe: str | dict = "") -> tuple[RetrievalModel, ModelInfo]:
    """Return a model in eval mode on the CPU, and what is known of it.

    A published file is imported as `import-checkpoint` does; weights of a CLIP become the mean of
    the frames (the zero-shot row of the papers). recipe: of such files, by its name (default: the
    published one of its system; a CLIP of any size), or the whole recipe of a CLIP. Raises
    DataError for anything else, ConfigError for a published file that needs others beside it.
    """
    file = find_checkpoint(path)
    if kind == "ours":
        return model_file.load_model(file)
    if kind == "clip":
        return clip_model(file, parse(recipe) if isinstance(recipe, dict) else _zero_shot(recipe))
    from pipeline.checkpoints import published

    try:
        info, weights = published.import_file(file, Files(), config.load(None), str(recipe))
    except ConfigError as error:
        if error.where == "--recipe":
            raise
        command = f"python cli.py import-checkpoint {file} {error.where} FILE --out OURS"
        raise ConfigError(
            error.what, where=error.where, fix=f"{error.fix} {command}; then --checkpoint OURS."
        ) from error
    model = model_file.build_model(info.recipe, info.facts, init=weights).eval()
    return model, replace(info, inputs=model.inputs)


def _zero_shot(recipe: str) -> Recipe:
    from pipeline.checkpoints.published import ZERO_SHOT

    values = config.load(None).recipe(recipe or ZERO_SHOT)
    if not recipe:  # the file says of what size it is
        values = config.merge(values, {"options": {"backbone": "given"}})
    return parse(values)
