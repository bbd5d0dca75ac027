"""List results that were set aside, and remove those named.

    python cli.py forget demo
    python cli.py forget data/work/demo/train --all

These are models that another training run replaced. Without a name and without --all nothing is
removed.
"""

import shutil
from pathlib import Path

import click

from pipeline.commands._folders import step_folders
from pipeline.commands._shared import config_option, set_option, work_option
from pipeline.core.files import expect_no_links
from pipeline.core.lock import Lock
from pipeline.core.results.generations import PREVIOUS, Kept, kept_results
from pipeline.core.state import STATE
from pipeline.errors import ConfigError
from pipeline.visible import one_line


@click.command(help=__doc__)
@click.argument("target", metavar="PIPELINE|FOLDER")
@click.argument("names", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="remove all that is listed")
@set_option
@work_option
@config_option
def command(
    target: str,
    names: tuple[str, ...],
    everything: bool,
    overrides: tuple,
    work: Path,
    path: Path | None,
) -> None:
    folders = step_folders(target, path, work, list(overrides))
    found = [(n, f, kept) for n, f in folders.items() for kept in kept_results(f)]
    unknown = set(names) - {kept.path.name for _, _, kept in found}
    if unknown:
        raise ConfigError(
            f"no result that was set aside is called {', '.join(sorted(unknown))}",
            where=target,
            fix="Without a name, this command lists what there is.",
        )
    for name, folder, kept in found:
        if not (everything or kept.path.name in names):
            click.echo(f"{name:<20} {_line(kept)}")
            continue
        expect_no_links(folder)
        with Lock(folder / STATE):
            shutil.rmtree(kept.path)
            if not any((folder / PREVIOUS).iterdir()):
                (folder / PREVIOUS).rmdir()
        click.echo(f"{name:<20} {_line(kept)}   removed")
    if not found:
        click.echo("nothing was set aside", err=True)


def _line(kept: Kept) -> str:
    kind = "complete" if kept.is_complete else "unfinished"
    return f"{kept.path.name:<20} {kind:<10} {kept.bytes / 1e6:>10,.1f} MB   {one_line(kept.path)}"
