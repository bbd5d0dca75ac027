"""Run every stage on a generated corpus, and report.

    python cli.py demo

If it is killed, the same command continues where it stopped and ends with the same bytes.
"""

import time
from pathlib import Path

import click

from pipeline import config, log
from pipeline.commands._ending import tell
from pipeline.commands._shared import run_options, set_option, settings_from
from pipeline.core import kept_options
from pipeline.core.execute import Selection, run_pipeline
from pipeline.core.plan import Pipeline


@click.command(help=__doc__)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("data/work/demo"),
    help="folder to write  [data/work/demo]",
)
@set_option
@run_options
def command(out: Path, overrides: tuple, **values: object) -> None:
    start = time.monotonic()
    given = kept_options.overrides(out, overrides)
    opened = Pipeline.open(
        config.load(values.pop("config")), "demo", out.parent, given, folder=out.name
    )
    kept_options.keep(out, given)
    run_pipeline(opened, Selection(), settings_from(values))
    tell(opened, Selection())
    log.info(f"demo: {time.monotonic() - start:.0f} s")
