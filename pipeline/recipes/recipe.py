"""Recipe: all that training needs besides data. A resolved copy lies in every checkpoint."""

from dataclasses import dataclass

from pydantic import BaseModel

from pipeline import registry
from pipeline.errors import ConfigError
from pipeline.recipes.options import TrainOptions

_KEYS = {"name", "model", "options", "train"}


@dataclass(frozen=True)
class Recipe:
    """`options` is the model's own `Options` (models/<model>/options.py)."""

    name: str
    model: str
    options: BaseModel
    train: TrainOptions

    @property
    def reads(self) -> frozenset[str]:
        """What of a corpus its model looks at."""
        return model_reads(self.model)

    def resolve(self) -> dict:
        """Return the recipe as plain values with every default filled in; `parse` gives it back."""
        return {
            "name": self.name,
            "model": self.model,
            "options": self.options.model_dump(mode="json", by_alias=True),
            "train": self.train.model_dump(mode="json", by_alias=True),
        }


def model_reads(model: str) -> frozenset[str]:
    """Return what a model looks at: words or clip_bpe, features or frames, tags; said by READS of
    its options file.

    Without it: frames and CLIP's byte pairs. Known without importing torch, so that a plan wires
    what is read.
    """
    return getattr(
        registry.model_part(model, "options"), "READS", frozenset({"clip_bpe", "frames"})
    )


def parse(values: dict | str) -> Recipe:
    """Return a recipe from {name, model, options, train}, checked without importing torch.

    Raises ConfigError that lists every mistake with its path and a did-you-mean.
    """
    if not isinstance(values, dict):
        raise ConfigError(
            f"a recipe is a mapping with model, options and train, not {values!r}",
            where="recipe",
            fix="Name a recipe of pipelines.yaml (list recipes), or write the mapping.",
        )
    where = f"recipes.{values.get('name', '(unnamed)')}"
    unknown = [
        f"{where}.{key}: unknown option. {registry.suggest(str(key), sorted(_KEYS))}"
        for key in values.keys() - _KEYS
    ]
    if unknown:
        raise ConfigError("\n".join(sorted(unknown)))
    if not isinstance(values.get("model"), str):
        raise ConfigError(
            "required, but not given",
            where=f"{where}.model",
            fix=registry.suggest("", registry.names("model")),
        )
    kind = registry.model_options(values["model"])
    parsed, mistakes = {}, []
    for section, model in (("options", kind), ("train", TrainOptions)):
        try:
            parsed[section] = registry.options(
                model, values.get(section) or {}, f"{where}.{section}"
            )
        except ConfigError as error:
            mistakes.append(error.what)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return Recipe(str(values.get("name", "")), values["model"], parsed["options"], parsed["train"])
