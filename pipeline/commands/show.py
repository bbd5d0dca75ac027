"""Show a recipe with everything it extends and every default filled in, as YAML.

python cli.py show dual_encoding_pp
"""

from pathlib import Path

import click
import yaml

from pipeline import config
from pipeline.training.recipe import parse


@click.command(help=__doc__)
@click.argument("recipe")
@click.option(
    "--config", "path", type=click.Path(path_type=Path), default=None, help="YAML file that adds to the shipped"
)
def command(recipe: str, path: Path | None) -> None:
    resolved = parse(config.load(path).recipe(recipe)).resolved()
    click.echo(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), nl=False)
