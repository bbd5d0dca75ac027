"""Join the parts of a sharded step.

python cli.py run demo --only compress --shard 0/2
python cli.py run demo --only compress --shard 1/2
python cli.py merge demo compress
"""

from pathlib import Path

import click

from pipeline import config
from pipeline.commands._shared import run_options, settings_from
from pipeline.core.execute import merge
from pipeline.core.plan import Pipeline


@click.command(help=__doc__)
@click.argument("pipeline")
@click.argument("step")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="STEP.OPTION=VALUE",
    help=("change an option, as in run (may be repeated)"),
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("data/work"),
    help="folder of the steps  [data/work]",
)
@run_options
def command(pipeline: str, step: str, overrides: tuple, work: Path, **values: object) -> None:
    opened = Pipeline.open(config.load(values.pop("config")), pipeline, work, list(overrides))
    merge(opened, opened.step(step), settings_from(values))
