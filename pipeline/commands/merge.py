"""Join the parts of a sharded step.

python cli.py run demo --only compress --shard 0/2
python cli.py run demo --only compress --shard 1/2
python cli.py merge demo compress

A stage that ran alone with --shard is joined by its --out folder:

python cli.py merge data/small
"""

from pathlib import Path

import click

from pipeline import config
from pipeline.commands._shared import run_options, set_option, settings_from, work_option
from pipeline.core import kept_options
from pipeline.core.execute import merge, merge_folder
from pipeline.core.plan import Pipeline
from pipeline.core.results.generations import PARTS
from pipeline.errors import ConfigError


@click.command(help=__doc__)
@click.argument("target", metavar="PIPELINE|FOLDER")
@click.argument("step", required=False)
@set_option
@work_option
@run_options
def command(target: str, step: str | None, overrides: tuple, work: Path, **values: object) -> None:
    loaded = config.load(values.pop("config"))
    settings = settings_from(values)
    if step is None and (Path(target) / PARTS).is_dir():
        merge_folder(Path(target), settings)
        return
    if step is None:
        raise ConfigError(
            "a pipeline needs the name of a step; a folder needs parts in it",
            where=target,
            fix="For example: python cli.py merge demo compress, or: python cli.py merge FOLDER",
        )
    opened = Pipeline.open(loaded, target, work, kept_options.overrides(work / target, overrides))
    merge(opened, opened.step(step), settings)
