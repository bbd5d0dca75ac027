"""Pages of the site that are made from the code: every command, option, recipe and state file.

mkdocs calls `on_files`. `python tools/site_reference.py FOLDER` writes the pages as Markdown.
"""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import click  # noqa: E402

import cli  # noqa: E402
from pipeline import config  # noqa: E402
from pipeline.commands._fields import OptionField, every_field  # noqa: E402
from pipeline.commands.list import describe_recipes  # noqa: E402

_WIDTH = 100
_STATE_HEADING = "## A step on disk"


def commands() -> str:
    """The help of every command, as it is printed."""
    lines = ["# Commands", ""]
    parent = click.Context(cli.cli, info_name="python cli.py", terminal_width=_WIDTH)
    for name in cli.cli.list_commands(parent):
        found = cli.cli.get_command(parent, name)
        lines += [f"## {name}", "", "```", _help(found, name, parent), "```", ""]
        inner = found.commands if isinstance(found, click.Group) else {}
        for sub, one in inner.items():
            context = click.Context(found, info_name=name, parent=parent)
            lines += [f"### {name} {sub}", "", "```", _help(one, sub, context), "```", ""]
    return "\n".join(lines)


def _help(found: click.Command, name: str, parent: click.Context) -> str:
    context = click.Context(found, info_name=name, parent=parent, terminal_width=_WIDTH)
    return found.get_help(context).replace("\b\n", "")


def options() -> str:
    """A table of the options of each stage, data set and model, and of recipes."""
    groups: dict[str, list[OptionField]] = {}
    for field in every_field():
        groups.setdefault(field.owner, []).append(field)
    lines = ["# Options", "", "`python cli.py explain-option WORD` finds them at a terminal.", ""]
    for owner, fields in groups.items():
        lines += [f"## {owner}", "", "| option | type | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{f.path}` | {_cell(f.kind)} | {_cell(f.default)} | {_cell(f.meaning)} |"
            for f in fields
        ]
        lines.append("")
    return "\n".join(lines)


def recipes() -> str:
    """A line for each recipe, with its published number."""
    loaded = config.load(config.SHIPPED)
    lines = ["# Recipes", "", "Numbers are published R@1, text to video / video to text."]
    lines += ["`python cli.py show RECIPE` prints every field. ", "", "| recipe | model | what |"]
    lines += ["|---|---|---|"]
    for name, what in describe_recipes(loaded).items():
        lines.append(f"| `{name}` | {loaded.recipe(name)['model']} | {_cell(what)} |")
    return "\n".join(lines) + "\n"


def state() -> str:
    """The files of a step's folder, as the map of the code lists them."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = re.search(rf"{_STATE_HEADING}\n.*?(?=\n## )", page, re.DOTALL)
    text = found[0].replace(_STATE_HEADING, "# State files")
    return f"{text}\n\nOf a whole pipeline: `_set.json`, the `--set` values of its last run.\n"


PAGES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "options": options,
    "recipes": recipes,
    "state": state,
}


def on_files(files: object, config: object) -> object:  # mkdocs names the arguments
    """Add the pages to those of docs/."""
    from mkdocs.structure.files import File

    sys.path.insert(0, str(ROOT))  # mkdocs takes it away after loading this file
    for name, make in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=make()))
    return files


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _written(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        path = folder / f"{name}.md"
        path.write_text(make(), encoding="utf-8")
        yield path


if __name__ == "__main__":
    for written in _written(Path(sys.argv[1])):
        print(written)
