"""Show a recipe with every default filled in, as YAML.

    python cli.py show dual_encoding_pp

The last line says how many parameters the model has and how many of them train. Models of words
and features are counted at the published size: --words, --tags and --feature-dim name another, as
check_param_num.py does with two checkpoints.
"""

from pathlib import Path

import click
import yaml

from pipeline import config
from pipeline.commands._shared import config_option
from pipeline.recipes.recipe import Recipe, parse

_FEATURE_DIM = 4096  # of the published features, two networks side by side
_FEATURE_DIMS = {"dual_encoding_2019": 2048}  # of one


@click.command(help=__doc__)
@click.argument("recipe")
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
@config_option
def command(recipe: str, words: int, tags: int, feature_dim: int | None, path: Path | None) -> None:
    parsed = parse(config.load(path).recipe(recipe))
    click.echo(yaml.safe_dump(parsed.resolve(), sort_keys=False, allow_unicode=True), nl=False)
    sizes = {"words": words, "tags": tags}
    sizes["feature_dim"] = feature_dim or _FEATURE_DIMS.get(recipe, _FEATURE_DIM)
    click.echo(f"# {_parameters(parsed, sizes)}")


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
