"""Bring every step of a pipeline up to date.

    python cli.py run demo --until compress --set compress.fps=1

If it is stopped (Ctrl-C, kill -9, a power cut), the same command continues and ends with the same
bytes.
"""

import json

import click

from pipeline import config
from pipeline.commands._download_sources import source_of
from pipeline.commands._ending import tell
from pipeline.commands._shared import names_of, run_options, set_option, settings_from, work_option
from pipeline.core import kept_options, ranks
from pipeline.core.execute import Selection, run_pipeline, selected
from pipeline.core.plan import Mistakes, Pipeline
from pipeline.core.status import (
    UP_TO_DATE,
    assess_all,
    expect_inputs,
    missing_inputs,
    replaced,
    with_missing_inputs,
)


@click.command(help=__doc__)
@click.argument("pipeline", shell_complete=names_of("pipelines"))
@click.option("--until", default="", metavar="STEP", help="stop after this step")
@click.option(
    "--only",
    default="",
    metavar="STEP",
    help="run only this step; whatever it reads must be up to date",
)
@click.option(
    "--force",
    multiple=True,
    metavar="STEP",
    help="redo this step even if it is up to date (may be repeated)",
)
@set_option
@click.option("--dry-run", is_flag=True, help="only say what would be done")
@work_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="print the manifests (or, with --dry-run, the plan) as JSON",
)
@run_options
def command(
    pipeline: str, until: str, only: str, force: tuple, overrides: tuple, **values: object
) -> None:
    dry_run, work, as_json = values.pop("dry_run"), values.pop("work"), values.pop("as_json")
    given = kept_options.overrides(work / pipeline, overrides)
    try:
        opened = Pipeline.open(config.load(values.pop("config")), pipeline, work, given)
    except Mistakes as mistakes:
        raise with_missing_inputs(mistakes, source_of) from None
    selection = Selection(until, only, force)
    settings = settings_from(values)
    if dry_run:
        _dry_run(opened, selection, as_json)
        return
    expect_inputs(opened, selected(opened, selection), source_of)
    kept_options.keep(work / pipeline, given)
    manifests = run_pipeline(opened, selection, settings)
    if ranks.rank() != 0:
        return
    if as_json:
        click.echo(json.dumps(manifests, indent=1, ensure_ascii=False))
    elif settings.shard[1] == 1:
        tell(opened, selection)


def _dry_run(pipeline: Pipeline, selection: Selection, as_json: bool) -> None:
    states = assess_all(pipeline)
    plan = {}
    for step in selected(pipeline, selection):
        state = states[step.name]
        forced = step.name in selection.force
        items = None if state.todo is None else state.todo
        would = "nothing" if state.status == UP_TO_DATE and not forced else "run"
        estimate = "" if state.todo is None else pipeline.stage(step).estimate()
        plan[step.name] = {
            "state": str(state),
            "would": would,
            "items": items,
            "total": state.total,
            "estimate": estimate,
            "replaces": state.replaces or (replaced(step) if forced and state.done else ""),
        }
        if forced:
            plan[step.name]["items"] = "all"
    missing = missing_inputs(pipeline, source_of)
    if as_json:
        click.echo(
            json.dumps(
                plan | ({"missing": missing} if missing else {}), indent=1, ensure_ascii=False
            )
        )
        return
    for name, row in plan.items():
        count = (
            "all items"
            if row["items"] in (None, "all")
            else f"{len(row['items']):,} of {row['total']:,} items"
        )
        doing = "nothing to do" if row["would"] == "nothing" else f"would process {count}"
        click.echo(
            f"{name:<20} {row['state']:<48}   {doing}"
            + (f"   {row['estimate']}" if row["estimate"] else "")
        )
        if row["replaces"]:
            click.echo(f"{'':<20} {row['replaces']}")
    if missing:
        click.echo(
            f"\n{len(missing)} inputs are missing; put them into place, or name other places with"
            " --set:"
        )
        for name, what in missing.items():
            click.echo(f"{name}\n    {what}")
