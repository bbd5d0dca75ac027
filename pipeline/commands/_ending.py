"""What `run` and `demo` say when they are done: results, where the report is, what to do next."""

import shlex
from collections.abc import Iterator

import click

from pipeline.core.execute import Selection, selected
from pipeline.core.plan import Pipeline, Step
from pipeline.core.state import read_manifest

_RESULTS, _PAGE, _MODEL = "results", "report.html", "checkpoint"


def tell(pipeline: Pipeline, selection: Selection) -> None:
    """Print the tables of results and the paths of reports that the selected steps made."""
    steps = selected(pipeline, selection)
    done = [step for step in steps if read_manifest(step.out) is not None]
    for step in done:
        if step.kind.makes == _RESULTS:
            _table(step)
    for step in done:
        if (step.out / _PAGE).is_file():
            click.echo(f"\nreport: {step.out / _PAGE}")
    for line in _next(pipeline, steps):
        click.echo(line)


def _table(step: Step) -> None:
    told = step.kind.told(step.out, read_manifest(step.out)["summary"])
    if told:
        click.echo(told)


def _next(pipeline: Pipeline, steps: list[Step]) -> Iterator[str]:
    """Yield the commands that may follow."""
    results = [step for step in steps if step.kind.makes == _RESULTS]
    models = [name for step in results for names in step.wiring.values() for name in names]
    made = [pipeline.steps[name] for name in models if name in pipeline.steps]
    for step in [step for step in made if step.kind.makes == _MODEL][-1:]:
        yield f'search: python cli.py search {shlex.quote(str(step.out))} "WHAT YOU LOOK FOR"'
    rest = list(pipeline.steps)[len(steps) :]
    if rest and steps == list(pipeline.steps.values())[: len(steps)]:
        yield f"next: python cli.py run {pipeline.name}   ({', '.join(rest)})"
