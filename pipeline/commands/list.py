"""List datasets, stages, models, recipes or pipelines.

    python cli.py list pipelines msvd drl

WORDS: show only names that contain every one of them. It is an error if no name does.
"""

import json
from pathlib import Path

import click

from pipeline import config, registry
from pipeline.commands._shared import config_option
from pipeline.errors import ConfigError
from pipeline.visible import one_line


def _stages(_loaded: config.Config) -> dict[str, str]:
    return {name: registry.summary("stage", name) for name in registry.names("stage")}


def _models(_loaded: config.Config) -> dict[str, str]:
    return {name: registry.summary("model", name) for name in registry.names("model")}


def _datasets(loaded: config.Config) -> dict[str, str]:
    return {
        name: f"{spec.get('type')}, root {spec.get('root')}"
        for name, spec in loaded.datasets.items()
    }


def _recipes(loaded: config.Config) -> dict[str, str]:
    return {name: f"model {loaded.recipe(name).get('model')}" for name in loaded.recipes}


def _pipelines(loaded: config.Config) -> dict[str, str]:
    return {
        name: f"{_name(spec.get('dataset'))}: {' -> '.join(spec.get('steps') or {})}"
        for name, spec in loaded.pipelines.items()
    }


def _name(dataset: object) -> object:
    return dataset.get("name") if isinstance(dataset, dict) else dataset


_LISTS = {
    "datasets": _datasets,
    "stages": _stages,
    "models": _models,
    "recipes": _recipes,
    "pipelines": _pipelines,
}


@click.command(help=__doc__)
@click.argument("what", type=click.Choice(list(_LISTS)))
@click.argument("words", nargs=-1)
@config_option
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def command(what: str, words: tuple[str, ...], path: Path | None, as_json: bool) -> None:
    everything = _LISTS[what](config.load(path))
    rows = {n: line for n, line in everything.items() if all(word in n for word in words)}
    if words and not rows:
        raise ConfigError(
            f"no {what.rstrip('s')} is called {' '.join(map(repr, words))}",
            where=f"list {what}",
            fix=registry.suggest(" ".join(words), sorted(everything)),
        )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    width = max(map(len, rows), default=0)
    for name, line in rows.items():
        click.echo(f"{one_line(name):<{width}}   {line}")
