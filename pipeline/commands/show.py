"""Show a recipe with every default filled in, as YAML.

    python cli.py show dual_encoding_pp

The last line says how many parameters the model has and how many of them train.
"""

from pathlib import Path

import click
import yaml

from pipeline import config
from pipeline.commands._shared import config_option
from pipeline.recipes.recipe import Recipe, parse


@click.command(help=__doc__)
@click.argument("recipe")
@config_option
def command(recipe: str, path: Path | None) -> None:
    parsed = parse(config.load(path).recipe(recipe))
    click.echo(yaml.safe_dump(parsed.resolved(), sort_keys=False, allow_unicode=True), nl=False)
    click.echo(f"# {_parameters(parsed)}")


def _parameters(recipe: Recipe) -> str:
    """How many parameters the model has and how many train, of all of them. No memory is taken for
    them.
    """
    import torch

    from models.base import Mismatch
    from pipeline.checkpoints import model_file
    from pipeline.recipes.freeze import count_parameters

    try:
        with torch.device("meta"):
            model = model_file.build_model(recipe, {})
    except Mismatch as error:
        return f"parameters: known with the data ({error.what})"
    found = count_parameters(model, recipe.train)
    share = 100 * found["trained"] / found["all"]
    return f"parameters: {found['all']:,}, of which {found['trained']:,} train ({share:.3f} %)"
