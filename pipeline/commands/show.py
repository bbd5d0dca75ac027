"""Show a recipe with every default and its meaning, as YAML.

    python cli.py show dual_encoding_pp
    python cli.py show drl --plain

Above each field stands what it means; --plain leaves that out. The last line says how many
parameters the model has and how many of them train. Models of words and features are counted at the
published size: --words, --tags and --feature-dim name another, as check_param_num.py does with two
checkpoints.
"""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline import config
from pipeline.commands._fields import inner_model
from pipeline.commands._shared import config_option, names_of
from pipeline.recipes.recipe import Recipe, parse

_LINE = 80
_FEATURE_DIM = 4096  # of the published features, two networks side by side
_FEATURE_DIMS = {"dual_encoding_2019": 2048}  # of one


@click.command(help=__doc__)
@click.argument("recipe", shell_complete=names_of("recipes"))
@click.option(
    "--words",
    type=click.IntRange(5),
    metavar="INTEGER",
    default=7811,
    help="entries of the vocabulary, special ones included  [7811: MSR-VTT's]",
)
@click.option(
    "--tags",
    type=click.IntRange(1),
    metavar="INTEGER",
    default=512,
    help="entries of the tag vocabulary  [512]",
)
@click.option(
    "--feature-dim",
    type=click.IntRange(1),
    metavar="INTEGER",
    help="numbers per frame  [4096; dual_encoding_2019: 2048]",
)
@click.option("--plain", is_flag=True, help="values alone, without what they mean")
@config_option
def command(
    recipe: str,
    words: int,
    tags: int,
    feature_dim: int | None,
    plain: bool,
    path: Path | None,
) -> None:
    loaded = config.load(path)
    parsed = parse(loaded.recipe(recipe))
    for word in config.WORDS_OF_A_RECIPE:
        if said := loaded.recipes[recipe].get(word):
            click.echo(f"# {'published R@1, t2v / v2t: ' if word == 'published' else ''}{said}")
    values = parsed.resolve()
    models = {"options": type(parsed.options), "train": type(parsed.train)}
    for line in _yaml(values) if plain else _explained(values, models):
        click.echo(line)
    sizes = {"words": words, "tags": tags}
    sizes["feature_dim"] = feature_dim or _FEATURE_DIMS.get(recipe, _FEATURE_DIM)
    click.echo(f"# {_parameters(parsed, sizes)}")


def _yaml(values: object) -> list[str]:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).splitlines()


def _explained(
    values: dict, models: Mapping[str, type[BaseModel] | None], indent: str = ""
) -> Iterator[str]:
    """Yield YAML, above each field a comment with its meaning. models: of the keys that hold
    options of a model.
    """
    for key, value in values.items():
        model = models.get(key)
        if model is None or not isinstance(value, dict):
            yield from (f"{indent}{line}" for line in _yaml({key: value}))
            continue
        yield f"{indent}{key}:"
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        for name, own in value.items():
            yield from _meaning(fields.get(name), f"{indent}  ")
            inner = inner_model(fields[name].annotation) if name in fields else None
            is_options = inner is not None and isinstance(own, dict) and own.keys() == _names(inner)
            if is_options:
                yield from _explained({name: own}, {name: inner}, f"{indent}  ")
            if not is_options:
                yield from (f"{indent}  {line}" for line in _yaml({name: own}))


def _names(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def _meaning(field: FieldInfo | None, indent: str) -> list[str]:
    text = (field.description or "").strip() if field else ""
    width = _LINE - len(indent) - 2
    return [f"{indent}# {line}" for line in textwrap.wrap(text, width, break_on_hyphens=False)]


def _parameters(recipe: Recipe, sizes: dict[str, int]) -> str:
    """Return how many parameters the model has and how many train, of all of them. No memory is
    taken for them.

    sizes: of the vocabularies and of a frame's features, for models that depend on them.
    """
    from models.base import Mismatch
    from models.parts.unallocated import unallocated
    from pipeline.checkpoints import model_file
    from pipeline.recipes.freeze import count_parameters

    try:
        with unallocated():
            model = model_file.build_model(recipe, _facts(recipe, sizes))
    except Mismatch as error:
        return f"parameters: known with the data ({error.what})"
    found = count_parameters(model, recipe.train)
    share = 100 * found["trained"] / found["all"]
    told = f"parameters: {found['all']:,}, of which {found['trained']:,} train ({share:.3f} %)"
    if "words" not in recipe.reads:
        return told
    return (
        f"{told}, with {sizes['words']:,} words, {sizes['tags']:,} tags and"
        f" {sizes['feature_dim']:,} numbers per frame"
    )


def _facts(recipe: Recipe, sizes: dict[str, int]) -> dict:
    """Return what a model of words and features is built from; the others read nothing of it."""
    if "words" not in recipe.reads:
        return {}
    return {
        "vocabulary": {f"word {n}": n for n in range(sizes["words"])},
        "tags": [f"tag {n}" for n in range(sizes["tags"])],
        "feature_dim": sizes["feature_dim"],
    }
