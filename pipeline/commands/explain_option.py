"""Say what an option of a stage, recipe or data set means.

    python cli.py explain-option train.seed_scope
    python cli.py explain-option warmup
    python cli.py explain-option frames window

WORDS are parts of its path; without one that fits, of its description. A recipe's own values:
`show RECIPE`.
"""

import json
import textwrap

import click

from pipeline import registry
from pipeline.commands._fields import OptionField, every_field
from pipeline.errors import ConfigError

_WIDTH = 80


@click.command(help=__doc__)
@click.argument("words", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def command(words: tuple[str, ...], as_json: bool) -> None:
    found = _matching([word.replace("-", "_").removeprefix("recipe.") for word in words])
    if not found:
        paths = sorted({field.path for field in every_field()})
        names = sorted({path.rpartition(".")[2] for path in paths})
        raise ConfigError(
            f"no option has {' '.join(map(repr, words))} in its name or description",
            where="explain-option",
            fix=registry.suggest(words[-1].rpartition(".")[2], names),
        )
    if as_json:
        click.echo(json.dumps([vars(field) for field in found], indent=1))
        return
    for field, owners in _together(found):
        click.echo(f"{field.path}   {field.kind}   [{field.default}]")
        for line in textwrap.wrap(field.meaning, _WIDTH - 4, break_on_hyphens=False):
            click.echo(f"    {line}")
        for line in textwrap.wrap(f"of {', '.join(owners)}", _WIDTH - 4):
            click.echo(f"    {line}")


def _matching(words: list[str]) -> list[OptionField]:
    """Return what a path says: the very path or name, else a part of it, else the description."""
    fields = every_field()
    tests = (
        lambda f, w: f.path == w or f.path.endswith(f".{w}"),
        lambda f, w: w in f.path,
        lambda f, w: w.replace("_", " ") in f.meaning.lower() or w in f.meaning.lower(),
    )
    for test in tests:
        found = [f for f in fields if all(test(f, w) for w in words)]
        if found:
            return found
    return []


def _together(fields: list[OptionField]) -> list[tuple[OptionField, list[str]]]:
    """Options that several have under one name and meaning, once."""
    groups: dict[tuple, list[OptionField]] = {}
    for field in fields:
        groups.setdefault((field.path, field.kind, field.default, field.meaning), []).append(field)
    return [(same[0], [field.owner for field in same]) for same in groups.values()]
