"""Score a saved similarity matrix in both directions.

    python cli.py metrics similarity.npy --rerank dsl --scale 100

FILE is a .npy (rows = texts), or a .npz with `sim` and, as needed, `owner` (the video of each
caption) or `captions_per_video`, `query_mask`, and `v2t` (if it is not the transpose of `t2v`).
"""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from pipeline.evaluation.metrics import Evaluation
    from pipeline.evaluation.scored_file import Scored

_FILE = click.Path(path_type=Path)
_MOST_BETAS = 1000
_TIES = ["pessimistic", "optimistic", "average", "expanded"]


@click.command(help=__doc__)
@click.argument("file", type=_FILE)
@click.option("--transposed", is_flag=True, help="rows of the matrix are videos")
@click.option(
    "--captions-per-video",
    type=click.IntRange(1),
    metavar="INTEGER",
    help="consecutive captions of each video  [1]",
)
@click.option(
    "--ties",
    type=click.Choice(_TIES),
    default=_TIES[0],
    help="how equal scores rank  [pessimistic]",
)
@click.option(
    "--v2t", "convention", type=click.Choice(["captions", "groups"]), default="captions",
    help="groups: best caption of each video  [captions]",
)  # fmt: skip
@click.option(
    "--rerank",
    type=click.Choice(["none", "dsl", "qbnorm", "diffusion"]),
    default="none",
    help="  [none]",
)
@click.option(
    "--scale",
    type=float,
    metavar="NUMBER",
    default=1.0,
    help="factor on all scores; for dsl on cosines: 100  [1]",
)
@click.option("--bank-t2v", type=_FILE, help=("qbnorm: scores of other texts (rows)"))
@click.option("--bank-v2t", type=_FILE, help=("qbnorm: scores of other videos (rows)"))
@click.option(
    "--bank-v2t-transposed",
    is_flag=True,
    help="qbnorm: its rows are texts (DGL)",
)
@click.option(
    "--beta",
    type=float,
    metavar="NUMBER",
    default=20.0,
    help="qbnorm: inverse temperature  [20]",
)
@click.option(
    "--k",
    type=click.IntRange(1),
    metavar="INTEGER",
    default=1,
    help="qbnorm: top items kept  [1]",
)
@click.option(
    "--theta",
    type=click.IntRange(1),
    metavar="INTEGER",
    default=1,
    help="qbnorm: times among these  [1]",
)
@click.option(
    "--k-v2t",
    type=click.IntRange(1),
    metavar="INTEGER",
    help=("qbnorm: k for video to text  [--k]"),
)
@click.option(
    "--theta-v2t",
    type=click.IntRange(1),
    metavar="INTEGER",
    help="qbnorm: for video to text",
)
@click.option(
    "--search-beta",
    metavar="FROM:TO:STEP",
    help="qbnorm: beta with the best t2v R@1",
)
@click.option("--denoiser", type=_FILE, help="diffusion: checkpoint of DiffusionRet")
@click.option("--videos", type=_FILE, help="diffusion: its results  [beside it]")
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="INTEGER",
    help="diffusion: seed  [as evaluated]",
)
@click.option("--ks", default="1,5,10,50", help="recall is at these ranks  [1,5,10,50]")
@click.option(
    "--map", "with_map", is_flag=True, help=("also compute mean average precision (slower)")
)
@click.option(
    "--nan",
    type=click.Choice(["error", "lowest"]),
    default="error",
    help="what a NaN score means  [error]",
)
@click.option("--json", "as_json", is_flag=True, help="print as JSON, not rounded")
def command(
    file: Path, as_json: bool, ks: str, nan: str, with_map: bool, **settings: object
) -> None:
    from pipeline.evaluation.intervals import of_evaluation
    from pipeline.evaluation.metrics import check_finite, evaluate
    from pipeline.evaluation.scored_file import read_scored

    recall_at = _ranks(ks)
    scored = read_scored(
        file, transposed=settings["transposed"], captions_per_video=settings["captions_per_video"]
    )
    t2v, v2t, n_nan = _clean(scored, nan)
    check_finite(t2v, file)
    check_finite(v2t, file)
    count = partial(
        evaluate, target=scored.target, ties=settings["ties"], convention=settings["convention"]
    )
    sides = _scaled(t2v, v2t, settings["scale"])
    banks = _read_banks(sides, settings)
    tried = _searched(sides, banks, settings, count)
    t2v, v2t, name = _reranked(
        sides, banks, settings | {key: tried[key] for key in ("beta",) if tried}
    )
    found = count(t2v, v2t, ks=recall_at)
    metrics = found.metrics | {"nan": n_nan, "rerank": name} | tried
    metrics["intervals"] = of_evaluation(found, scored.target, ks=recall_at)
    if with_map:
        _add_map(metrics, found, v2t, scored.target)
    click.echo(json.dumps(metrics, indent=1) if as_json else table(metrics))


def table(metrics: dict) -> str:
    """Return both directions as aligned lines, rounded to one decimal, with their intervals."""
    from pipeline.evaluation.intervals import interval_words

    names = [key for key in metrics["t2v"] if key not in ("n", "tied")]
    titles = [f"R@{key[1:]}" if key[1:].isdigit() else key for key in names]
    lines = [f"{'':<15}" + "".join(f"{title:>8}" for title in [*titles, "n", "tied"])]
    for side, words in (("t2v", "text -> video"), ("v2t", "video -> text")):
        values = metrics[side]
        cells = "".join(f"{values[key]:8.{4 if key == 'mAP' else 1}f}" for key in names)
        lines.append(f"{words:<15}{cells}{values['n']:8,}{values['tied']:8,}")
        limits = metrics["intervals"][side]
        for place, name in enumerate(("  95 % from", "  to")):
            cells = [f"{limits[key][place]:8.1f}" if key in limits else " " * 8 for key in names]
            lines.append(f"{name:<15}{''.join(cells)}".rstrip())
    if "tried" in metrics:
        rows = [(row["beta"], row["t2v_R1"], row["v2t_R1"]) for row in metrics["tried"]]
        lines += [
            f"beta {beta:<10g}t2v R@1 {t2v:5.1f}   v2t R@1 {v2t:5.1f}" for beta, t2v, v2t in rows
        ]
        lines.append(
            f"best beta {metrics['beta']:g}: chosen by the t2v R@1 of these very queries, so"
            " optimistic"
        )
    lines.append(interval_words(metrics["intervals"]))
    nan = f"; {metrics['nan']:,} NaN scores taken as lowest" if metrics.get("nan") else ""
    lines.append(
        f"{metrics['n']:,} texts, {metrics['videos']:,} videos; ties {metrics['tie_policy']}; video"
        f" -> text over {metrics['v2t_definition']}; rerank {metrics.get('rerank', 'none')}{nan}"
    )
    return "\n".join(lines)


def _clean(scored: "Scored", nan: str) -> tuple["np.ndarray", "np.ndarray", int]:
    """Return the matrices, with NaN replaced by less than the lowest score if that was asked for,
    and how many there were.
    """
    import numpy as np

    missing = [np.isnan(matrix) for matrix in (scored.t2v, scored.v2t)]
    n_nan = int(missing[0].sum())
    if nan == "error" or not n_nan:
        return scored.t2v, scored.v2t, 0
    lowest = np.min(scored.t2v, where=np.isfinite(scored.t2v), initial=0) - 1
    t2v = np.where(missing[0], lowest, scored.t2v)
    v2t = np.where(missing[1], lowest, scored.v2t)
    return t2v, v2t, n_nan


def _scaled(t2v: "np.ndarray", v2t: "np.ndarray", scale: float) -> dict[str, "np.ndarray"]:
    import numpy as np

    return (
        {"t2v": t2v, "v2t": v2t}
        if scale == 1
        else {"t2v": t2v * np.float32(scale), "v2t": v2t * np.float32(scale)}
    )


def _read_banks(sides: dict[str, "np.ndarray"], settings: dict) -> dict[str, "np.ndarray"]:
    """Return the banks that were given, scaled like the scores; {} where they are not asked for."""
    import numpy as np

    from pipeline.evaluation import rerank
    from pipeline.evaluation.scored_file import read_matrix

    if settings["rerank"] != "qbnorm":
        if settings["search_beta"]:
            raise ConfigError(
                "--search-beta looks for the beta of qbnorm",
                where="--search-beta",
                fix="Add --rerank qbnorm.",
            )
        return {}
    paths = {side: settings[f"bank_{side}"] for side in sides if settings[f"bank_{side}"]}
    if not paths:
        raise ConfigError(
            "qbnorm needs a bank of other queries",
            where="--rerank qbnorm",
            fix="Give --bank-t2v, --bank-v2t or both.",
        )
    banks = {
        side: read_matrix(path) * np.float32(settings["scale"]) for side, path in paths.items()
    }
    if settings["bank_v2t_transposed"] and "v2t" in banks:
        banks["v2t"] = banks["v2t"].T
    for side, bank in banks.items():
        rerank.check_bank(sides[side], bank, paths[side])
    return banks


def _reranked(
    sides: dict[str, "np.ndarray"], banks: dict[str, "np.ndarray"], settings: dict
) -> tuple["np.ndarray", "np.ndarray", str]:
    from pipeline.evaluation import rerank

    if settings["rerank"] == "none":
        return sides["t2v"], sides["v2t"], "none"
    if settings["rerank"] == "diffusion":
        return *_denoised(sides, settings), "diffusion"
    if settings["rerank"] == "dsl":
        return rerank.dsl_order(sides["t2v"]), rerank.dsl_order(sides["v2t"]), "dsl"
    done = {
        side: rerank.qb_norm(sides[side], bank, **_qb_options(settings, side))
        for side, bank in banks.items()
    }
    t2v = done["t2v"].scores if "t2v" in done else sides["t2v"]
    v2t = done["v2t"].scores if "v2t" in done else sides["v2t"]
    return t2v, v2t, f"qbnorm ({' and '.join(banks)})"


def _denoised(sides: dict[str, "np.ndarray"], settings: dict) -> tuple["np.ndarray", "np.ndarray"]:
    """Return the scores, with what sampling says of the best candidates of each row added to
    them.
    """
    from pipeline.checkpoints.toolkit_file import find_checkpoint
    from pipeline.evaluation.denoiser import equal_rows, open_saved_reranker

    if settings["denoiser"] is None:
        raise ConfigError(
            "diffusion needs a denoiser",
            where="--rerank diffusion",
            fix="Give --denoiser the checkpoint of a DiffusionRet.",
        )
    scores = sides["t2v"], sides["v2t"]
    file = find_checkpoint(settings["denoiser"])
    second, seed = open_saved_reranker(file, settings["videos"], scores)
    asked = settings["seed"]
    return second.rerank(scores, equal_rows(scores), seed if asked is None else asked)


def _qb_options(settings: dict, side: str) -> dict[str, float]:
    own = {
        key: settings[f"{key}_v2t"]
        for key in ("k", "theta")
        if side == "v2t" and settings[f"{key}_v2t"]
    }
    return {key: settings[key] for key in ("beta", "k", "theta")} | own


def _searched(
    sides: dict[str, "np.ndarray"],
    banks: dict[str, "np.ndarray"],
    settings: dict,
    count: "Callable[..., Evaluation]",
) -> dict:
    """Return the best beta and what each gave: {"beta", "tried": [{beta, t2v_R1, v2t_R1}]}; {} if
    no search was asked for.
    """
    from pipeline.evaluation.rerank import search_beta

    if not settings["search_beta"]:
        return {}
    rows = []

    def recall(beta: float) -> float:
        metrics = count(*_reranked(sides, banks, settings | {"beta": beta})[:2], ks=(1,)).metrics
        rows.append({"beta": beta} | {f"{side}_R1": metrics[side]["R1"] for side in ("t2v", "v2t")})
        return metrics["t2v"]["R1"]

    return {"beta": search_beta(_grid(settings["search_beta"]), recall).beta, "tried": rows}


def _grid(asked: str) -> list[float]:
    from pipeline.evaluation.rerank import beta_grid

    try:
        start, stop, step = map(float, asked.split(":"))
        is_range = 0 < start <= stop and step > 0 and (stop - start) / step < _MOST_BETAS
    except ValueError:
        is_range = False
    if not is_range:
        raise ConfigError(
            f"{asked!r} is not a range of at most {_MOST_BETAS:,} values",
            where="--search-beta",
            fix="Give the first, the last and the step: 0.5:1:0.01.",
        )
    return beta_grid(start, stop, step)


def _add_map(metrics: dict, found: "Evaluation", v2t: "np.ndarray", target: "np.ndarray") -> None:
    from pipeline.evaluation.metrics import average_precisions

    for side, value in average_precisions(found, v2t, target).items():
        metrics[side]["mAP"] = value


def _ranks(ks: str) -> tuple[int, ...]:
    values = [part.strip() for part in ks.split(",")]
    if not all(value.isdigit() and int(value) > 0 for value in values):
        raise ConfigError(
            f"{ks!r} is not a list of ranks", where="--ks", fix="Give whole numbers: 1,5,10,50."
        )
    return tuple(dict.fromkeys(int(value) for value in values))
