"""Show what a dataset consists of, as a table and plots.

    python cli.py describe msrvtt-9k --words 32

It counts captions, their lengths, the words that a model would cut, and durations. Durations come
from a `check` of the same dataset if there was one, else from the annotations. OUT/describe.png
holds the plots, OUT/describe.html the plots and the table.
"""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from pipeline import config, log
from pipeline.commands._dataset import find_dataset, short_name
from pipeline.commands._shared import config_option
from pipeline.core.files import atomic_write
from pipeline.core.state import STATE, read_records
from pipeline.datasets.base import Annotations
from pipeline.errors import DataError

_ROWS = (
    "texts",
    "videos",
    "captions per video",
    "words",
    "tokens",
    "cut",
    "repeated texts",
    "seconds",
    "hours",
)


@click.command(help=__doc__)
@click.argument("dataset")
@click.option(
    "--words",
    type=click.IntRange(3),
    metavar="INTEGER",
    help="tokens that a model reads of a text  [the published protocol's]",
)
@click.option(
    "--check", type=click.Path(path_type=Path), help="--out of check  [data/work/check/DATASET]"
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="folder to write  [data/work/describe/DATASET]",
)
@config_option
@click.option("--json", "as_json", is_flag=True, help="print the figures as JSON")
def command(
    dataset: str,
    words: int | None,
    check: Path | None,
    out: Path | None,
    path: Path | None,
    as_json: bool,
) -> None:
    from pipeline.report import histograms
    from pipeline.report.dataset_facts import describe, same_as_before

    opened = find_dataset(config.load(path), dataset)
    annotations = opened.load()
    limit = words or getattr(opened.options, "words", 32)
    out = out or Path("data/work/describe") / short_name(dataset)
    seconds = _seconds(annotations, check or Path("data/work/check") / short_name(dataset))
    found = describe(annotations, seconds, _tokenizer())
    same = same_as_before(annotations)
    shown = {name: facts for name, facts in found.items() if name not in same}
    figures = {name: facts.to_json(limit) for name, facts in found.items()}
    titles = {
        name: " = ".join([name, *(n for n, twin in same.items() if twin == name)]) for name in shown
    }
    picture = histograms.png({titles[name]: facts for name, facts in shown.items()}, limit, dataset)
    atomic_write(out / "describe.png", picture)
    table = _table({titles[name]: figures[name] for name in shown})
    atomic_write(out / "describe.html", _page(dataset, table, picture))
    for note in annotations.notes:
        log.info(note)
    log.info(f"splits {annotations.origin}")
    click.echo(json.dumps(figures, indent=1) if as_json else _lines(table, out))


def _lines(table: list[list[str]], out: Path) -> str:
    widths = [max(len(row[n]) for row in table) + 3 for n in range(len(table[0]))]
    rows = [
        "".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table
    ]
    return "\n".join([*rows, "", f"plots: {out / 'describe.png'}, {out / 'describe.html'}"])


def _table(figures: Mapping[str, dict]) -> list[list[str]]:
    """Return rows of text, the first one with the names of the splits."""
    cells = [[name, *_column(facts)] for name, facts in figures.items()]
    limit = next(iter(figures.values()))["cut_at"] if figures else 0
    heads = ["split", *(f"cut at {limit} tokens" if row == "cut" else row for row in _ROWS)]
    return [list(row) for row in zip(heads, *cells, strict=True)]


def _column(facts: dict) -> list[str]:
    by = "" if facts["cut_is_known_by"] == "tokens" else "at least "
    share = facts["cut"] / facts["texts"] if facts["texts"] else 0.0
    return [
        f"{facts['texts']:,}",
        f"{facts['videos']:,}",
        _spread(facts["captions"]),
        _spread(facts["words"]),
        _spread(facts["tokens"]),
        f"{by}{facts['cut']:,} ({share:.1%})",
        f"{facts['repeated_texts']:,}",
        _spread(facts["seconds"]),
        f"{facts['seconds']['total'] / 3600:,.1f}" if facts["seconds"]["count"] else "not known",
    ]


def _spread(spread: dict) -> str:
    if not spread["count"]:
        return "not known"
    return f"{spread['least']:,.4g} to {spread['most']:,.4g}, mean {spread['mean']:,.1f}"


def _page(dataset: str, table: list[list[str]], picture: bytes) -> str:
    from pipeline.pages.render import render

    title = f"{dataset}: what is in it"
    return render("facts", title=title, name=dataset, table=table, picture=_base64(picture))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _seconds(annotations: Annotations, check: Path) -> dict[str, float]:
    """Durations of the files that a check looked at, by video id."""
    found: dict[str, float] = {}
    for kind in ("fast", "full"):
        for record in read_records(check / kind / STATE / "items.jsonl"):
            if record.usable:
                name = record.source.rpartition("/")[2].rpartition(".")[0]
                found |= {name: record.facts["seconds"], record.id: record.facts["seconds"]}
                found[record.source] = record.facts["seconds"]
    by_path = {
        i: found[str(v.path)]
        for i, v in annotations.videos.items()
        if v.path and v.start is None and str(v.path) in found
    }
    return found | by_path


def _tokenizer() -> Callable[[str], int] | None:
    from pipeline.text.clip_bpe import ClipBpe

    try:
        tokenizer = ClipBpe.load()
    except DataError as error:
        log.warning(f"tokens are not counted: {error}")
        return None
    return lambda text: len(tokenizer.encode(text))
