"""List datasets, stages, models, recipes or pipelines.

    python cli.py list pipelines
    python cli.py list pipelines msvd drl

WORDS: only names that contain every one of them. Without words `pipelines` is a table: how many
there are for each data set and system, and the one to begin with.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click

from pipeline import config, registry
from pipeline.commands._shared import config_option
from pipeline.errors import ConfigError
from pipeline.visible import one_line

_FIRST = ("drl", "tiny-dual", "dual_encoding_pp")  # to begin with, the first that a data set has
_SHORT = {"dual_encoding": "dual", "diffusion_ret": "diffus", "hybrid_space": "hybrid"}
_VARIANT = re.compile(r"-(centerclip|dgl|diffusion_ret)$")  # of a data set, for one system


def _stages(_loaded: config.Config) -> dict[str, str]:
    return {name: registry.summary("stage", name) for name in registry.names("stage")}


def _models(_loaded: config.Config) -> dict[str, str]:
    return {name: registry.summary("model", name) for name in registry.names("model")}


def _datasets(loaded: config.Config) -> dict[str, str]:
    return {
        name: f"{spec.get('type')}, root {spec.get('root')}"
        for name, spec in loaded.datasets.items()
    }


def describe_recipes(loaded: config.Config) -> dict[str, str]:
    """Return what each recipe is, with its published number."""
    return {name: _about(loaded, name) for name in loaded.recipes}


def _about(loaded: config.Config, name: str) -> str:
    """What a recipe says of itself, else what it changes in which other one, and its number."""
    entry = loaded.recipes[name]
    changes = ", ".join(_changes(entry.get("options") or {}))
    base = entry.get("extends", "")
    derived = f"{base} with {changes}" if changes else base or f"model {entry.get('model')}"
    text = str(entry.get("about") or derived)
    published = entry.get("published")
    return f"{text}; {published}" if published else text


def _changes(options: dict, path: str = "") -> Iterator[str]:
    for key, value in options.items():
        if isinstance(value, dict):
            yield from _changes(value, f"{path}{key}.")
        else:
            yield f"{path}{key} {json.dumps(value).strip(chr(34))}"


def _pipelines(loaded: config.Config) -> dict[str, str]:
    return {
        name: f"{_name(spec.get('dataset'))}: {' -> '.join(spec.get('steps') or {})}"
        for name, spec in loaded.pipelines.items()
    }


def _name(dataset: object) -> str:
    return str(dataset.get("name") if isinstance(dataset, dict) else dataset)


_LISTS = {
    "datasets": _datasets,
    "stages": _stages,
    "models": _models,
    "recipes": describe_recipes,
    "pipelines": _pipelines,
}


@click.command(help=__doc__)
@click.argument("what", type=click.Choice(list(_LISTS)))
@click.argument("words", nargs=-1)
@config_option
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def command(what: str, words: tuple[str, ...], path: Path | None, as_json: bool) -> None:
    loaded = config.load(path)
    everything = _LISTS[what](loaded)
    rows = {n: line for n, line in everything.items() if all(word in n for word in words)}
    if words and not rows:
        raise ConfigError(
            f"no {what.rstrip('s')} is called {' '.join(map(repr, words))}",
            where=f"list {what}",
            fix=registry.suggest("-".join(words), sorted(everything)),
        )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    if what == "pipelines" and not words:
        for line in _table(loaded):
            click.echo(line)
        return
    if what == "recipes":
        click.echo("# numbers: published R@1, text to video / video to text")
    width = max(map(len, rows), default=0)
    for name, line in rows.items():
        click.echo(f"{one_line(name):<{width}}   {line}")


def _table(loaded: config.Config) -> Iterator[str]:
    """Yield a line for each data set: how many pipelines train which system, and the one to begin
    with. It fits 80 columns.
    """
    counts: dict[str, dict[str, int]] = {}
    for name, spec in loaded.pipelines.items():
        row = counts.setdefault(_VARIANT.sub("", _name(spec.get("dataset"))), {})
        system = _system(loaded, name, spec)
        row[system] = row.get(system, 0) + 1
    systems = [n for n in registry.names("model") if any(n in row for row in counts.values())]
    heads = [_SHORT.get(name, name) for name in systems]
    wide = max(len(name) for name in counts)
    yield f"{'data set':<{wide}} {' '.join(heads)} begin with"
    for dataset, row in counts.items():
        cells = [
            f"{row.get(name) or '-':>{len(head)}}"
            for name, head in zip(systems, heads, strict=True)
        ]
        yield f"{dataset:<{wide}} {' '.join(cells)} {_first(loaded, dataset)}"
    example = "msvd" if "msvd" in counts else next(iter(counts))
    yield ""
    yield f"{len(loaded.pipelines)} pipelines. Names: python cli.py list pipelines {example} drl"
    yield "What one would do, and which files it needs: python cli.py run NAME --dry-run"


def _system(loaded: config.Config, name: str, spec: dict) -> str:
    """Return the model that the last training step trains; without one what the name says."""
    models = [
        str(loaded.resolve("recipes", step["recipe"]).get("model"))
        for step in (spec.get("steps") or {}).values()
        if isinstance(step, dict) and isinstance(step.get("recipe"), str | dict)
    ]
    known = registry.names("model")
    return next(
        (m for m in [*reversed(models), *known] if m in known and (models or m in name)), ""
    )


def _first(loaded: config.Config, dataset: str) -> str:
    """Return the pipeline of a data set to begin with: the recommended one, else its first."""
    for end in _FIRST:
        if f"{dataset}-{end}" in loaded.pipelines:
            return f"{dataset}-{end}"
    own = (n for n, spec in loaded.pipelines.items() if _name(spec.get("dataset")) == dataset)
    return next(own)
