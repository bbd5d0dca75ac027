"""Say whether models differ by more than chance.

    python cli.py compare data/work/demo/evaluate
    python cli.py compare data/work/demo/evaluate/backbone one.npy other.npy

PATH is an evaluate step, the folder of one checkpoint in it, or a score matrix (as for `metrics`).
Of two models every metric is compared; of more, R@1 of each pair. Intervals are of 95 %: videos are
drawn again, 2,000 times. p: 10,000 random swaps of the two models.
"""

import json
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.errors import ConfigError
from pipeline.visible import visible

if TYPE_CHECKING:
    from pipeline.evaluation.compare import Contender

_PATH = click.Path(path_type=Path)
_POLICIES = ["pessimistic", "optimistic", "average"]


@click.command(help=__doc__)
@click.argument("paths", type=_PATH, nargs=-1, required=True, metavar="PATH...")
@click.option("--transposed", is_flag=True, help="rows of matrices are videos")
@click.option("--against", metavar="NAME", help="compare all others with this one only")
@click.option(
    "--ties",
    type=click.Choice(_POLICIES),
    default=_POLICIES[0],
    help="how equal scores rank  [pessimistic]",
)
@click.option(
    "--v2t",
    "definition",
    type=click.Choice(["captions", "groups"]),
    default="captions",
    help="of matrices: over what a video is ranked  [captions]",
)
@click.option(
    "--seed", type=click.IntRange(0), metavar="INTEGER", default=0, help="of the draws  [0]"
)
@click.option("--json", "as_json", is_flag=True, help="print as JSON, not rounded")
def command(
    paths: tuple[Path, ...],
    transposed: bool,
    against: str | None,
    ties: str,
    definition: str,
    seed: int,
    as_json: bool,
) -> None:
    from pipeline.evaluation.compare import compare, read_contenders

    contenders = read_contenders(paths, ties, definition, transposed=transposed)
    pairs = _pairs(contenders, against)
    found = [
        {"a": a.label, "b": b.label, "ties": ties} | compare(a, b, seed=seed) for a, b in pairs
    ]
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif len(found) == 1:
        click.echo(_one(found[0]))
    else:
        click.echo(_many(found))


def _pairs(
    contenders: "list[Contender]", against: str | None
) -> "list[tuple[Contender, Contender]]":
    if against is None:
        return list(combinations(contenders, 2))
    chosen = [one for one in contenders if one.label == against]
    if len(chosen) != 1:
        raise ConfigError(
            f"{len(chosen)} of these models are called {against!r}",
            where="--against",
            fix=f"Name one of: {', '.join(visible(one.label) for one in contenders)}.",
        )
    return [(one, chosen[0]) for one in contenders if one is not chosen[0]]


def _one(found: dict) -> str:
    """Return every metric of two models."""
    from pipeline.evaluation.compare import SIDES

    lines = [f"A  {visible(found['a'])}", f"B  {visible(found['b'])}"]
    for side, words in SIDES.items():
        lines += ["", f"{words:<15}{'A':>8}{'B':>8}{'A - B':>9}   95 % interval"]
        for name, row in found[side]["metrics"].items():
            title = f"R@{name[1:]}" if name[1:].isdigit() else name
            lines.append(_row(title, row))
        lines.append(_verdict(found[side]))
    lines += ["", _row("Rsum, both", found["Rsum"]), f"ties {found['ties']}"]
    return "\n".join(lines)


def _row(title: str, row: dict) -> str:
    low, high = row["interval"]
    return (
        f"{title:<15}{row['a']:8.1f}{row['b']:8.1f}{row['difference']:+9.1f}"
        f"   {low:+.1f} to {high:+.1f}"
    )


def _verdict(side: dict) -> str:
    chance = "beyond chance" if side["beyond_chance"] else "within chance"
    return (
        f"R@1: A alone is right on {side['won']:,} of {side['queries']:,} queries, B alone on"
        f" {side['lost']:,}; p {side['p']:.4f}: {chance}"
    )


def _many(found: list[dict]) -> str:
    """R@1 of each pair, one block for each side."""
    from pipeline.evaluation.compare import SIDES

    names = [(visible(pair["a"]), visible(pair["b"])) for pair in found]
    width = max(len(name) for name in ["A", *(name for both in names for name in both)])
    lines = []
    for side, words in SIDES.items():
        lines.append(
            f"R@1, {words} ({found[0][side]['queries']:,} queries; * beyond chance)\n"
            f"{'A':<{width}}  {'B':<{width}}  {'A - B':>6}  {'95 % interval':<15} won/lost       p"
        )
        for (a, b), pair in zip(names, found, strict=True):
            values = pair[side]
            row = values["metrics"]["R1"]
            low, high = row["interval"]
            star = "*" if values["beyond_chance"] else " "
            score = f"{values['won']:,}/{values['lost']:,}"
            lines.append(
                f"{a:<{width}}  {b:<{width}}  {row['difference']:+6.1f}"
                f"{star} {f'{low:+.1f} to {high:+.1f}':<15} {score:>8}  {values['p']:.4f}"
            )
        lines.append("")
    by_luck = 0.05 * len(found)
    lines.append(
        f"{len(found)} pairs: about {by_luck:.1f} of them would look beyond chance by luck alone;"
        f" ties {found[0]['ties']}"
    )
    return "\n".join(lines)
