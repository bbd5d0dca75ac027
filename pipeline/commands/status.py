"""Show the state of every step of a pipeline.

    python cli.py status demo

A row per step: items done and failed, time, size, and why the step is not up to date.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from pipeline import config, log
from pipeline.commands._shared import config_option, names_of, set_option, work_option
from pipeline.core import kept_options
from pipeline.core.plan import Pipeline
from pipeline.core.status import State, assess_all
from pipeline.visible import one_line


@click.command(help=__doc__)
@click.argument("pipeline", shell_complete=names_of("pipelines"))
@set_option
@work_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def command(pipeline: str, overrides: tuple, work: Path, path: Path | None, as_json: bool) -> None:
    given = kept_options.overrides(work / pipeline, overrides)
    states = assess_all(Pipeline.open(config.load(path), pipeline, work, given))
    if as_json:
        shown = {name: asdict(state) for name, state in states.items()}
        click.echo(json.dumps(shown, indent=1, default=str))
        return
    width = max(map(len, states), default=0)
    click.echo(f"{'step':<{width}}   {'done':>9} {'failed':>7} {'time':>9} {'size':>9}   state")
    for name, state in states.items():
        numbers = (
            f"{_done(state):>9} {state.failed:>7,} {state.seconds:>7.1f} s {_size(state.bytes):>9}"
        )
        click.echo(f"{name:<{width}}   {numbers}   {one_line(state)}")
    for name, state in states.items():
        for line in _notes(state):
            click.echo(f"{name:<{width}}   {one_line(line)}")


def _notes(state: State) -> Iterator[str]:
    """Yield what a row has no room for: the names of bad items, and what was set aside."""
    for word, count in (("damaged", state.damaged), ("failed", state.failed)):
        if count:
            yield f"{count:,} {word}{log.names(state.named.get(word) or [], count)}"
    for kept in state.kept:
        kind = "result" if kept.is_complete else "unfinished result"
        yield f"{kind} set aside in {kept.path}, {_size(kept.bytes)} (command: forget)"


def _done(state: State) -> str:
    return f"{state.done:,}/{state.total:,}" if state.total is not None else f"{state.done:,}"


def _size(count: int) -> str:
    if not count:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
