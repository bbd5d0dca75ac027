"""Measure a part of a pipeline on this machine.

    python cli.py bench loader demo

`loader` feeds the train steps of a pipeline without a model and says how fast that is.
"""

import json
from pathlib import Path

import click

from pipeline import config
from pipeline.commands._shared import config_option, set_option, work_option
from pipeline.core import kept_options
from pipeline.core.plan import Pipeline, Step
from pipeline.errors import ConfigError


@click.group(help=__doc__)
def command() -> None:
    pass


@command.command()
@click.argument("pipeline")
@click.option("--step", default="", metavar="STEP", help="train step to measure  [all of them]")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1),
    default=3.0,
    metavar="NUMBER",
    help="seconds for each step  [3]",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    metavar="INTEGER",
    help="threads that read frames  [one per core, up to 8]",
)
@set_option
@work_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def loader(
    pipeline: str, step: str, seconds: float, threads: int | None, overrides: tuple, work: Path,
    path: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Samples per second that the train steps of PIPELINE are fed with; what they read must be made
    already.
    """
    opened = Pipeline.open(
        config.load(path), pipeline, work, kept_options.overrides(work / pipeline, overrides)
    )
    rows = {s.name: _measure(opened, s, seconds, threads) for s in _train_steps(opened, step)}
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    click.echo(
        f"{'':<20} {'samples/s':>10} {'samples/CPU-s':>14} {'MB/s':>8} {'batch':>6}   read from"
    )
    for name, row in rows.items():
        per_second, per_cpu, mb, batch, source = row.values()
        click.echo(
            f"{name:<20} {per_second:>10,.0f} {per_cpu:>14,.0f} {mb:>8,.0f} {batch:>6,}   {source}"
        )


def _train_steps(pipeline: Pipeline, name: str) -> list[Step]:
    makers = [
        s
        for s in pipeline.steps.values()
        if s.kind.makes == "checkpoint" and "recipe" in s.kind.references
    ]
    chosen = [s for s in makers if name in ("", s.name)]
    if not chosen:
        known = ", ".join(s.name for s in makers)
        raise ConfigError(
            f"{pipeline.name} has no train step {name}".rstrip(),
            where="bench loader",
            fix=f"There are {known}." if known else "Name a pipeline with one.",
        )
    return chosen


def _measure(pipeline: Pipeline, step: Step, seconds: float, threads: int | None) -> dict:
    from pipeline.feeding.feed_rate import measure
    from pipeline.recipes.recipe import parse
    from pipeline.training.setup import Setup

    stage = pipeline.stage(step)
    setup = Setup(
        parse(stage.options.recipe),
        stage.inputs,
        stage.out,
        threads=threads or stage.options.loader_threads,
    )
    batches = setup.batches()
    rate = measure(batches, seconds)
    return {
        "samples_per_second": rate.samples / rate.seconds,
        "samples_per_cpu_second": rate.samples / rate.cpu_seconds,
        "mb_per_second": rate.bytes / rate.seconds / 1e6,
        "batch": batches.batch_size,
        "source": setup.store.where,
    }
