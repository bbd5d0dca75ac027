"""Run every stage on a generated corpus, and report.

    python cli.py demo

If it is killed, the same command continues where it stopped and ends with the same bytes.
"""

import time
from pathlib import Path

import click

from pipeline import config, log
from pipeline.commands._shared import run_options, set_option, settings_from
from pipeline.core.execute import Selection, run_pipeline
from pipeline.core.plan import Pipeline
from pipeline.evaluation.results import table


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
    opened = Pipeline.open(
        config.load(values.pop("config")), "demo", out.parent, list(overrides), folder=out.name
    )
    run_pipeline(opened, Selection(), settings_from(values))
    click.echo(table(out / "evaluate"))
    click.echo(f"\nreport: {out / 'report' / 'report.html'}")
    log.info(f"demo: {time.monotonic() - start:.0f} s")
