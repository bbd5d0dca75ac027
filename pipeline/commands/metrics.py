"""Score a saved similarity matrix: recall, median and mean rank, both directions.

python cli.py metrics similarity.npy --rerank dsl --scale 100

FILE: .npy (rows = texts), or .npz with `sim` and, as needed, `owner` (video of each caption) or `captions_per_video`,
`query_mask`, and `v2t` (else the transpose of `t2v`).
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from pipeline.evaluation.metrics import Evaluation
    from pipeline.evaluation.scored_file import Scored

_FILE = click.Path(path_type=Path)
_TIES = ["pessimistic", "optimistic", "average", "expanded"]


@click.command(help=__doc__)
@click.argument("file", type=_FILE)
@click.option("--transposed", is_flag=True, help="rows are videos")
@click.option(
    "--captions-per-video", type=click.IntRange(1), metavar="INTEGER", help="consecutive captions of each [1]"
)
@click.option("--ties", type=click.Choice(_TIES), default=_TIES[0], help="rank of a query that ties  [pessimistic]")
@click.option(
    "--v2t", "convention", type=click.Choice(["captions", "groups"]), default="captions",
    help="gallery of a video: all captions, or a group per video (its best)  [captions]",
)  # fmt: skip
@click.option("--rerank", type=click.Choice(["none", "dsl", "qbnorm"]), default="none", help="  [none]")
@click.option(
    "--scale", type=float, metavar="NUMBER", default=1.0, help="multiply scores first: 100 for cosines, dsl  [1]"
)
@click.option("--bank-t2v", type=_FILE, help="qbnorm: scores of other texts x these videos")
@click.option("--bank-v2t", type=_FILE, help="qbnorm: scores of other videos x these texts")
@click.option(
    "--beta", type=float, metavar="NUMBER", default=20.0, help="qbnorm: inverse temperature  [20, for cosines]"
)
@click.option(
    "--k", type=click.IntRange(1), metavar="INTEGER", default=1, help="qbnorm: top items of a bank query  [1]"
)
@click.option("--theta", type=click.IntRange(1), metavar="INTEGER", default=1, help="qbnorm: times among them  [1]")
@click.option("--ks", default="1,5,10,50", help="ranks at which recall is reported  [1,5,10,50]")
@click.option("--map", "with_map", is_flag=True, help="also mean average precision (slower)")
@click.option("--nan", type=click.Choice(["error", "lowest"]), default="error", help="what a NaN score is  [error]")
@click.option("--json", "as_json", is_flag=True, help="print as JSON, not rounded")
def command(file: Path, as_json: bool, ks: str, nan: str, with_map: bool, **settings: object) -> None:
    from pipeline.evaluation.metrics import check_finite, evaluate
    from pipeline.evaluation.scored_file import read_scored

    recall_at = _ranks(ks)
    scored = read_scored(file, transposed=settings["transposed"], captions_per_video=settings["captions_per_video"])
    t2v, v2t, n_nan = _clean(scored, nan)
    check_finite(t2v, file)
    check_finite(v2t, file)
    t2v, v2t, name = _reranked(t2v, v2t, settings)
    convention = settings["convention"]
    found = evaluate(t2v, v2t, scored.target, ties=settings["ties"], convention=convention, ks=recall_at)
    metrics = found.metrics | {"nan": n_nan, "rerank": name}
    if with_map:
        _add_map(metrics, found, v2t, scored.target)
    click.echo(json.dumps(metrics, indent=1) if as_json else table(metrics))


def table(metrics: dict) -> str:
    """Both directions as aligned lines, rounded to one decimal."""
    names = [key for key in metrics["t2v"] if key not in ("n", "tied")]
    titles = [f"R@{key[1:]}" if key[1:].isdigit() else key for key in names]
    lines = [f"{'':<15}" + "".join(f"{title:>8}" for title in [*titles, "n", "tied"])]
    for side, words in (("t2v", "text -> video"), ("v2t", "video -> text")):
        values = metrics[side]
        cells = "".join(f"{values[key]:8.{4 if key == 'mAP' else 1}f}" for key in names)
        lines.append(f"{words:<15}{cells}{values['n']:8,}{values['tied']:8,}")
    nan = f"; {metrics['nan']:,} NaN scores taken as lowest" if metrics.get("nan") else ""
    lines.append(
        f"{metrics['n']:,} texts, {metrics['videos']:,} videos; ties {metrics['tie_policy']}; "
        f"video -> text over {metrics['v2t_definition']}; rerank {metrics.get('rerank', 'none')}{nan}"
    )
    return "\n".join(lines)


def _clean(scored: "Scored", nan: str) -> tuple["np.ndarray", "np.ndarray", int]:
    """The matrices, with NaN replaced by less than the lowest score if that was asked for, and how many there were."""
    import numpy as np

    missing = [np.isnan(matrix) for matrix in (scored.t2v, scored.v2t)]
    n_nan = int(missing[0].sum())
    if nan == "error" or not n_nan:
        return scored.t2v, scored.v2t, 0
    lowest = np.min(scored.t2v, where=np.isfinite(scored.t2v), initial=0) - 1
    t2v, v2t = (np.where(at, lowest, m) for at, m in zip(missing, (scored.t2v, scored.v2t), strict=True))
    return t2v, v2t, n_nan


def _reranked(t2v: "np.ndarray", v2t: "np.ndarray", settings: dict) -> tuple["np.ndarray", "np.ndarray", str]:
    import numpy as np

    from pipeline.evaluation import rerank
    from pipeline.evaluation.scored_file import read_matrix

    scale = np.float32(settings["scale"])
    sides = {"t2v": t2v, "v2t": v2t} if scale == 1 else {"t2v": t2v * scale, "v2t": v2t * scale}
    if settings["rerank"] == "none":
        return sides["t2v"], sides["v2t"], "none"
    if settings["rerank"] == "dsl":
        return rerank.dsl_order(sides["t2v"]), rerank.dsl_order(sides["v2t"]), "dsl"
    banks = {side: settings[f"bank_{side}"] for side in sides if settings[f"bank_{side}"]}
    if not banks:
        raise ConfigError(
            "no bank of other queries", where="--rerank qbnorm", fix="Give --bank-t2v, --bank-v2t or both."
        )
    options = {key: settings[key] for key in ("beta", "k", "theta")}
    for side, path in banks.items():
        bank = read_matrix(path) * scale
        rerank.check_bank(sides[side], bank, path)
        sides[side] = rerank.qb_norm(sides[side], bank, **options).scores
    return sides["t2v"], sides["v2t"], f"qbnorm ({' and '.join(banks)})"


def _add_map(metrics: dict, found: "Evaluation", v2t: "np.ndarray", target: "np.ndarray") -> None:
    import numpy as np

    from pipeline.evaluation.metrics import mean_average_precision

    metrics["t2v"]["mAP"] = float(np.mean(1 / (found.t2v.ranks("pessimistic") + 1)))
    _, owner = np.unique(target, return_inverse=True)
    metrics["v2t"]["mAP"] = mean_average_precision(v2t[found.v2t_rows], owner)


def _ranks(ks: str) -> tuple[int, ...]:
    values = [part.strip() for part in ks.split(",")]
    if not all(value.isdigit() and int(value) > 0 for value in values):
        raise ConfigError(f"{ks!r} is not a list of ranks", where="--ks", fix="Give whole numbers: 1,5,10,50.")
    return tuple(dict.fromkeys(int(value) for value in values))
