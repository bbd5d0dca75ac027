"""Every option there is: of stages, of training, of models, of data sets, with its meaning."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline import registry


@dataclass(frozen=True)
class OptionField:
    """path: as a step, a recipe or a data set of pipelines.yaml names it; owner: "stage train",
    "model drl", "recipe", "dataset msvd". default: as YAML would say it, "required" without one.
    """

    owner: str
    path: str
    kind: str
    default: str
    meaning: str


@cache
def every_field() -> tuple[OptionField, ...]:
    """Return all options. Loads no torch."""
    from pipeline.recipes.options import TrainOptions

    found = list(_fields(TrainOptions, "recipe", "train."))
    for name in registry.names("model"):
        found += _fields(registry.model_options(name), f"model {name}", "options.")
    for name in registry.names("stage"):
        found += _fields(registry.find("stage", name).Stage.Options, f"stage {name}", f"{name}.")
    for name in registry.names("dataset"):
        options = registry.find("dataset", name).Dataset.Options
        found += _fields(options, f"dataset {name}", "dataset.")
    return tuple(found)


def inner_model(annotation: object) -> type[BaseModel] | None:
    """Return the model inside an annotation: of `X | None`, `list[X]`, `dict[int, X]`."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        if kind is not annotation and get_args(kind) and (found := inner_model(kind)):
            return found
    return None


def _fields(model: type[BaseModel], owner: str, path: str) -> Iterator[OptionField]:
    for name, field in model.model_fields.items():
        where = f"{path}{field.alias or name}"
        inner = inner_model(field.annotation)
        meaning = (field.description or "").strip()
        if meaning or inner is None:
            yield OptionField(owner, where, _kind(field), _default(field), meaning)
        if inner is not None:
            is_many = "dict" in str(field.annotation) or "list" in str(field.annotation)
            yield from _fields(inner, owner, f"{where}{'.N' if is_many else ''}.")


def _kind(field: FieldInfo) -> str:
    """Return the type as people say it: "number", "a | b"."""
    words = [_word(kind) for kind in (get_args(field.annotation) or (field.annotation,))]
    return " | ".join(dict.fromkeys(word for word in words if word))


def _word(kind: object) -> str:
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    if kind is type(None):
        return "null"
    if isinstance(kind, str | int | float):
        return str(kind)
    if isinstance(kind, type):
        return names.get(kind, kind.__name__.lower().removesuffix("options"))
    return " | ".join(str(part) for part in get_args(kind) if isinstance(part, str)) or "yaml"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value) or '""'
