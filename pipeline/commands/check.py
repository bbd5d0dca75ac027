"""Compare a dataset with its files and the published protocol.

    python cli.py check msrvtt-9k --videos data/small --fps 3 --short-side 224

Every frame of every file is decoded (with --fast only the first one). Videos that were looked at
and have not changed are not opened again, so a second check takes seconds and a stopped one
continues. The report is OUT/report.json. Exit code 1 if something is wrong.
"""

import contextlib
import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from pipeline import config, log, registry
from pipeline.commands._dataset import find_dataset, short_name
from pipeline.commands._shared import config_option, jobs_option
from pipeline.core import runner
from pipeline.core.artefact import Artefact
from pipeline.core.files import atomic_write
from pipeline.core.state import STATE, read_records
from pipeline.core.todo import Settings
from pipeline.datasets.base import Dataset
from pipeline.datasets.parts import inventory
from pipeline.datasets.parts.inventory import EXAMPLES, KINDS, Expected, Inventory
from pipeline.errors import ComparisonFailed
from pipeline.visible import one_line


@click.command(help=__doc__)
@click.argument("dataset")
@click.option(
    "--videos",
    type=click.Path(path_type=Path),
    help="folder of the files, or --out of the step that made them",
)
@click.option(
    "--fast",
    is_flag=True,
    help="decode only the first frame; truncated and corrupted files are then not found",
)
@click.option(
    "--fps",
    type=click.FloatRange(0, min_open=True),
    metavar="NUMBER",
    help="frame rate they must have",
)
@click.option(
    "--short-side",
    type=click.IntRange(1),
    metavar="INTEGER",
    help="pixels their shorter side must have",
)
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(list(KINDS)),
    help=("a kind of fault to accept (may be repeated)"),
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="folder to write  [data/work/check/DATASET]",
)
@jobs_option("worker processes")
@click.option(
    "--memory",
    type=click.FloatRange(0),
    metavar="NUMBER",
    default=4.0,
    help="GiB per worker, 0: no limit  [4]",
)
@click.option("--retry-failed", is_flag=True, help="look again at files that were set aside")
@config_option
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
def command(
    dataset: str, videos: Path | None, fast: bool, out: Path | None, as_json: bool, **values: object
) -> None:
    opened = find_dataset(config.load(values["path"]), dataset, videos, all_videos=True)
    out = out or Path("data/work/check") / short_name(dataset)
    # files that cannot be used are what this command looks for, so no share of them is too much
    settings = Settings(
        jobs=values["jobs"],
        memory_bytes=int(values["memory"] * 2**30),
        retry_failed=values["retry_failed"],
        max_failures=1.0,
    )
    expected = Expected(fast, values["fps"], values["short_side"])
    taken = take(opened, videos, out / ("fast" if fast else "full"), expected, settings)
    wrong = taken.wrong(values["allow"])
    about = {
        "dataset": dataset,
        "looked_at": "first frame" if fast else "every frame",
        "ok": not wrong,
    }
    report = json.dumps(about | taken.to_json(), indent=1, ensure_ascii=True) + "\n"
    atomic_write(out / "report.json", report)
    if as_json:
        click.echo(report, nl=False)
    else:
        _show(taken, values["allow"])
    if wrong:
        raise ComparisonFailed(
            f"{sum(len(taken.faults[kind]) for kind in wrong):,} faults: {', '.join(wrong)}",
            where=dataset,
            fix=f"All of them are in {out / 'report.json'}; --allow KIND accepts a kind.",
        )


def take(
    dataset: Dataset, videos: Path | None, out: Path, expected: Expected, settings: Settings
) -> Inventory:
    """Look into all files (notes in `out`), then compare. videos: instead of the folder that the
    reader knows.
    """
    with _few_collections():
        return _take(dataset, videos, out, expected, settings)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Look for cycles of objects rarely: there are none, and looking took 2 of 5 seconds (100,000
    videos, measured).
    """
    before = gc.get_threshold()
    gc.set_threshold(2_000_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _take(
    dataset: Dataset, videos: Path | None, out: Path, expected: Expected, settings: Settings
) -> Inventory:
    annotations = dataset.load()
    known = inventory.video_folder(dataset)
    if videos is not None and known.absolute() != videos.absolute():
        # a reader that takes no folder of videos: its paths are of other files, names must do
        annotations.videos = {
            i: replace(v, path=None) if v.path else v for i, v in annotations.videos.items()
        }
        known = videos
    kind = registry.find("stage", "probe").Stage
    stage = kind(kind.Options(fast=expected.fast), {"videos": Artefact("video_files", known)}, out)
    runner.run(stage, "check", settings)
    records = list(read_records(out / STATE / "items.jsonl"))
    return inventory.take(annotations, records, dataset.published_counts(), expected)


def _show(taken: Inventory, allowed: tuple[str, ...]) -> None:
    click.echo(f"{taken.videos:,} videos in the annotations, {taken.files:,} files")
    click.echo(f"\n{'split':<8}{'texts':>10}{'videos':>10}{'with file':>11}   published")
    for name, counts in taken.splits.items():
        click.echo(
            f"{name:<8}{counts['texts']:>10,}{counts['videos']:>10,}{counts['files']:>11,}   "
            f"{_published(counts['published'])}"
        )
    for note in taken.notes:
        log.info(note)
    for kind, lines in taken.faults.items():
        click.echo(
            f"\n{len(lines):>8,} {kind}: {KINDS[kind]}{' (allowed)' if kind in allowed else ''}"
        )
        for line in lines[:EXAMPLES]:
            click.echo(f"         {one_line(line)}")
        if len(lines) > EXAMPLES:
            click.echo("         ...")
    if not taken.faults:
        click.echo("\nnothing is wrong")


def _published(counts: dict | None) -> str:
    if counts is None:
        return "no figures"
    return (
        ", ".join(f"{value:,} {what}" for what, value in counts.items() if value is not None)
        or "no figures"
    )
