"""List the items that were set aside, with the reason.

python cli.py failures demo compress
python cli.py failures demo compress --retry
"""

import json
from dataclasses import replace
from pathlib import Path

import click

from pipeline import config
from pipeline.commands._shared import names_of, run_options, set_option, settings_from, work_option
from pipeline.core import kept_options
from pipeline.core.execute import finished_parts, run_step
from pipeline.core.plan import Pipeline, Step
from pipeline.core.state import STATE, Journal, Record
from pipeline.visible import one_line


@click.command(help=__doc__)
@click.argument("pipeline", shell_complete=names_of("pipelines"))
@click.argument("step", required=False)
@click.option("--all", "everything", is_flag=True, help="also items that are damaged but used")
@click.option("--retry", is_flag=True, help="redo the failed items of the step, or of every step")
@set_option
@work_option
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
@run_options
def command(
    pipeline: str,
    step: str | None,
    everything: bool,
    retry: bool,
    overrides: tuple,
    work: Path,
    as_json: bool,
    **values: object,
) -> None:
    given = kept_options.overrides(work / pipeline, overrides)
    opened = Pipeline.open(config.load(values.pop("config")), pipeline, work, given)
    settings = replace(settings_from(values), retry_failed=True)
    steps = [opened.step(step)] if step else list(opened.steps.values())
    if retry:
        for one in steps:
            if _failed(one):
                run_step(opened, one, settings, finished_parts(one.out))
    found = [(one.name, record) for one in steps for record in _failed(one, everything)]
    if as_json:
        fields = ("id", "status", "source", "reason", "message", "attempts")
        click.echo(
            json.dumps(
                [{"step": n, **{k: getattr(r, k) for k in fields}} for n, r in found], indent=1
            )
        )
        return
    for name, record in found:
        click.echo(
            f"{name}   {one_line(record.id)}   {'damaged, ' if record.usable else ''}"
            f"{record.reason}: {one_line(record.message)}"
            + (f"   ({one_line(record.source)})" if record.source else "")
        )
    damaged = sum(record.usable for _, record in found)
    words = (
        f"{len(found) - damaged:,} items set aside"
        if len(found) > damaged
        else "no items set aside"
    )
    words += f", {damaged:,} damaged" if damaged else ""
    if not everything and (hidden := sum(len(_failed(s, True)) for s in steps) - len(found)):
        words += f"; {hidden:,} are damaged but used (--all lists them)"
    click.echo(words, err=True)


def _failed(step: Step, everything: bool = False) -> list[Record]:
    """Return the failed items of a step; also the damaged ones, if `everything` is asked for."""
    records = Journal(step.out / STATE / "items.jsonl").load().records.values()
    return [r for r in records if not r.usable or (everything and r.status == "damaged")]
