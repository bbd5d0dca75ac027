"""Find components by name: the file or folder name is the registry name.

`stage: compress` is `pipeline/stages/compress.py`, `type: msvd` is `pipeline/datasets/msvd.py`,
`model: drl` is the folder `models/drl/` with its `model.py`. A name resolves only to what exists in
its folder: it never imports anything else.
"""

import ast
import difflib
import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline import plugins
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

ROOT = Path(__file__).resolve().parent.parent
_FOLDERS = {
    "stage": "pipeline/stages",
    "dataset": "pipeline/datasets",
    "command": "pipeline/commands",
}
_MODELS = (  # a folder each: model.py (torch), options.py (torch-free), published.py, recipes.yaml
    "models"
)
_QUOTES = '"""'
_MOST_CHOICES = 40  # that a message lists
_CONTRACT = "base"  # of the data sets: beside them, and none of them


def names(kind: str) -> list[str]:
    """Return all names of a kind (stage, dataset, model, command), sorted; commands have dashes for
    underscores.
    """
    if kind == "model":
        return sorted(
            {file.parent.name for root in _roots(kind) for file in root.glob("*/model.py")}
        )
    stems = {file.stem for root in _roots(kind) for file in root.glob("*.py")}
    stems = [stem for stem in stems if not stem.startswith("_") and stem != _CONTRACT]
    return sorted(stem.replace("_", "-") if kind == "command" else stem for stem in stems)


def find(kind: str, name: str) -> ModuleType:
    """Import the module of a component. ConfigError with a did-you-mean if there is no such
    file.
    """
    path = _path(kind, name)
    if kind == "model":
        return importlib.import_module(f"{_MODELS}.{path.parent.name}.model")
    return importlib.import_module(f"{_FOLDERS[kind].replace('/', '.')}.{path.stem}")


def model_part(name: str, part: str) -> ModuleType | None:
    """Return the module `models/<name>/<part>.py` (options, published, published_training), or None
    if the model has none.
    """
    if not _path("model", name).with_name(f"{part}.py").is_file():
        return None
    return importlib.import_module(f"{_MODELS}.{name}.{part}")


def model_options(name: str) -> "type[BaseModel]":
    """Return the `Options` of a model, without importing torch."""
    return model_part(name, "options").Options


def recipe_files() -> list[Path]:
    """Return the `recipes.yaml` of every model, sorted by the model's name."""
    found = [file for root in _roots("model") for file in root.glob("*/recipes.yaml")]
    return sorted(found, key=lambda file: file.parent.name)


def known(kind: str, name: str) -> str:
    """`name`, if it is one of `names(kind)`."""
    choices = names(kind)
    if name not in choices:
        raise ConfigError(f"there is no {kind} called {name!r}", fix=suggest(name, choices))
    return name


def _roots(kind: str) -> list[Path]:
    """Return the folders that hold a kind: ours, then those of plugins."""
    own = ROOT / (_MODELS if kind == "model" else _FOLDERS[kind])
    return [own, *(folder / f"{kind}s" for folder in plugins.folders())]


def _path(kind: str, name: str) -> Path:
    """Return the file of a component. ConfigError for an unknown name, or one that two folders
    have.
    """
    name = known(kind, name)
    stem = name.replace("-", "_") if kind == "command" else name
    inside = Path(stem, "model.py") if kind == "model" else Path(f"{stem}.py")
    found = [root / inside for root in _roots(kind) if (root / inside).is_file()]
    if len(found) > 1:
        raise ConfigError(
            f"two folders have a {kind} {name!r}: {found[0]} and {found[1]}",
            where="--plugins",
            fix="Give the file of the plugin another name.",
        )
    return found[0]


def summary(kind: str, name: str) -> str:
    """First sentence of a component's docstring, read without importing it."""
    return help_text(kind, name).split("\n")[0]


def help_text(kind: str, name: str) -> str:
    """Return the whole docstring of a component, read without importing it; "" if it does not begin
    with one.
    """
    text = _path(kind, name).read_text(encoding="utf-8")
    end = text.find(_QUOTES, len(_QUOTES))
    if not text.startswith(_QUOTES) or end < 0:
        return ""
    # only the docstring is parsed: all files together take a quarter of a second
    return ast.get_docstring(ast.parse(text[: end + len(_QUOTES)])) or ""


def suggest(word: str, choices: list[str]) -> str:
    """Return a did-you-mean, else the choices; of very many the nearest ones."""
    close = difflib.get_close_matches(str(word), choices, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]}?"
    if len(choices) <= _MOST_CHOICES:
        return f"Choose one of: {', '.join(choices)}."
    near = difflib.get_close_matches(str(word), choices, n=3, cutoff=0.0)
    return f"There are {len(choices):,}, {', '.join(near)} and others (python cli.py list)."


def options(model: "type[BaseModel]", values: dict, where: str) -> "BaseModel":
    """Validate options; every mistake in one ConfigError, each with its path and a did-you-mean."""
    from pydantic import ValidationError  # a quarter of the time of --help, which needs none

    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError("\n".join(describe(model, error, where))) from None


def describe(model: "type[BaseModel]", error: "ValidationError", where: str) -> list[str]:
    """Return one line per mistake of a validation error: `where.path: what. Did you mean ...?`"""
    lines = []
    for fault in error.errors():
        path = ".".join([where, *map(str, fault["loc"])])
        if fault["type"] == "extra_forbidden":
            fields = _fields_at(model, fault["loc"][:-1])
            lines.append(f"{path}: unknown option. {suggest(str(fault['loc'][-1]), fields)}")
        elif fault["type"] == "missing":
            lines.append(f"{path}: required, but not given.{_meaning(model, fault['loc'])}")
        else:
            meaning = _meaning(model, fault["loc"])
            got = (
                "" if isinstance(fault["input"], dict) else f", got {fault['input']!r}"
            )  # options that clash: said
            lines.append(f"{path}: {fault['msg'].removeprefix('Value error, ')}{got}.{meaning}")
    return lines


def _meaning(model: object, path: tuple) -> str:
    """Return a second line that says what the option at a path is, or nothing where that is not
    known.
    """
    fields, description = getattr(model, "model_fields", {}), None
    for key in path:
        field = fields.get(key)
        description = getattr(field, "description", None) or description
        inner = getattr(field, "annotation", None)
        kinds = [inner, *getattr(inner, "__args__", ())]
        fields = next((kind.model_fields for kind in kinds if hasattr(kind, "model_fields")), {})
    return f"\n    {path[-1]}: {description}." if description else ""


def _fields_at(model: object, path: tuple) -> list[str]:
    for key in path:
        field = getattr(model, "model_fields", {}).get(key)
        inner = getattr(field, "annotation", None)
        candidates = [inner, *getattr(inner, "__args__", ())]
        model = next((c for c in candidates if hasattr(c, "model_fields")), model)
    return list(getattr(model, "model_fields", {}))
