"""Two models on the same queries: what differs, and whether it is more than chance.

Source: docs/specs/metrics.md, section 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.arrays import read_npz
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation import results
from pipeline.evaluation.intervals import KS, SEED, Queries, bootstrap, limits, swap_test
from pipeline.evaluation.metrics import Counts, evaluate, summary
from pipeline.evaluation.scored_file import read_scored

SIDES = {"t2v": "text -> video", "v2t": "video -> text"}
_LEAST_P = 0.05
Policy = Literal["pessimistic", "optimistic", "average"]


@dataclass(frozen=True)
class Contender:
    """A model's ranks, zero-based, with the queries in the order of their ids.

    ranks float64 (n,) and ids (n,) of each of SIDES; owners (N_t,): the video id of each text.
    definition: over what a video is ranked.
    """

    label: str
    ranks: dict[str, np.ndarray]
    ids: dict[str, np.ndarray]
    owners: np.ndarray
    split: str
    definition: str

    @classmethod
    def of_matrix(
        cls, path: Path, ties: Policy, definition: str, transposed: bool = False
    ) -> "Contender":
        """Return what a saved score matrix ranks; queries are known by their rows.

        transposed: rows of the matrix are videos.
        """
        scored = read_scored(path, transposed=transposed)
        found = evaluate(scored.t2v, scored.v2t, scored.target, convention=definition)
        texts = np.arange(len(scored.target))
        counts = {"t2v": found.t2v, "v2t": found.v2t}
        return cls(
            label=path.name,
            ranks={side: counts[side].ranks(ties) for side in SIDES},
            ids={"t2v": texts, "v2t": found.v2t_rows},
            owners=scored.target,
            split=path.name,
            definition=definition,
        )

    @classmethod
    def of_folder(cls, folder: Path, ties: Policy) -> "list[Contender]":
        """Return what an evaluated checkpoint ranked, one for each way of ranking."""
        metrics = results.read_metrics(folder)
        gallery = results.read_gallery(folder)
        arrays = read_npz(folder / results.RANKS)
        found = []
        for place, (rerank, values) in enumerate(metrics["results"].items()):
            try:
                counts = {side: _counts(arrays, f"{rerank}/{side}") for side in SIDES}
                rows = arrays[f"{rerank}/v2t_rows"]
                target = arrays["target"]
            except KeyError as error:
                raise DataError(
                    f"no ranks of {error}",
                    where=folder / results.RANKS,
                    fix="Rank it again: python cli.py evaluate ... --force.",
                ) from error
            videos = np.array(gallery.video_ids)
            found.append(
                _in_order(
                    cls(
                        label=_label(metrics["checkpoint"], rerank, place),
                        ranks={side: counts[side].ranks(ties) for side in SIDES},
                        ids={"t2v": np.array(gallery.caption_ids), "v2t": videos[rows]},
                        owners=videos[target],
                        split=gallery.split,
                        definition=values["v2t_definition"],
                    )
                )
            )
        return found

    def queries(self) -> tuple[dict[str, Queries], int]:
        """Return the queries of both sides, and how many videos they belong to."""
        videos, of_text = np.unique(self.owners, return_inverse=True)
        sides = {
            "t2v": Queries(self.ranks["t2v"], of_text),
            "v2t": Queries(self.ranks["v2t"], np.arange(len(videos))),
        }
        return sides, len(videos)


def _label(checkpoint: str, rerank: str, place: int) -> str:
    return checkpoint if not place and rerank == "none" else f"{checkpoint} {rerank}"


def _counts(arrays: dict[str, np.ndarray], name: str) -> Counts:
    above = arrays[f"{name}_above"]
    return Counts(above, arrays[f"{name}_tied"], np.zeros_like(above))


def _in_order(given: Contender) -> Contender:
    order = {side: np.argsort(ids, kind="stable") for side, ids in given.ids.items()}
    return Contender(
        label=given.label,
        ranks={side: given.ranks[side][order[side]] for side in SIDES},
        ids={side: given.ids[side][order[side]] for side in SIDES},
        owners=given.owners[order["t2v"]],
        split=given.split,
        definition=given.definition,
    )


def read_contenders(
    paths: Sequence[Path], ties: Policy, definition: str, *, transposed: bool = False
) -> list[Contender]:
    """Return every model below the paths: score matrices, evaluated checkpoints, evaluate steps.

    definition: over what a matrix ranks a video; results know theirs. transposed: rows of matrices
    are videos. Raises DataError for a path
    that is none of these, and ConfigError for fewer than two models.
    """
    found = []
    for path in paths:
        if path.suffix.lower() in (".npy", ".npz"):
            found.append(Contender.of_matrix(path, ties, definition, transposed))
        elif (path / results.METRICS).is_file():
            found += Contender.of_folder(path, ties)
        elif folders := sorted(file.parent for file in path.glob(f"*/{results.METRICS}")):
            for folder in folders:
                found += Contender.of_folder(folder, ties)
        else:
            raise DataError(
                "there are no results of evaluate in it",
                where=path,
                fix="Give an evaluate step, a folder in it, or a score matrix (.npy, .npz).",
            )
    if len(found) < 2:
        raise ConfigError(
            f"{len(found)} model is nothing to compare",
            where=paths[0],
            fix="Give a second one: python cli.py compare A B.",
        )
    _check_same_queries(found)
    return found


def _check_same_queries(contenders: Sequence[Contender]) -> None:
    first = contenders[0]
    for other in contenders[1:]:
        told = None
        if other.definition != first.definition:
            told = f"videos are ranked over {first.definition} and over {other.definition}"
        for side in SIDES:
            ids, others = first.ids[side], other.ids[side]
            if len(ids) != len(others):
                told = f"{len(ids):,} and {len(others):,} queries, {SIDES[side]}"
            elif not np.array_equal(ids, others):
                different = int(np.count_nonzero(ids != others))
                told = f"{different:,} of {len(ids):,} queries are others, {SIDES[side]}"
        if told is None and not np.array_equal(first.owners, other.owners):
            told = "captions belong to other videos"
        if told:
            raise DataError(
                f"{first.label} and {other.label} did not rank the same: {told}",
                where="compare",
                fix="Evaluate both on the same split, with the same options.",
            )


def compare(one: Contender, other: Contender, *, seed: int = SEED) -> dict:
    """Return what differs between two models that ranked the same queries.

    {side: {metrics: {name: {a, b, difference, interval}}, won, lost, p, beyond_chance}, "Rsum":
    {a, b, difference, interval}}; differences are a - b, recalls in percent.
    """
    mine, n_videos = one.queries()
    theirs, _ = other.queries()
    both = mine | {f"other {side}": queries for side, queries in theirs.items()}
    draws = bootstrap(both, n_videos, seed=seed)
    found: dict = {}
    sums = {"a": 0.0, "b": 0.0}
    for side in SIDES:
        a = summary(mine[side].ranks, KS)
        b = summary(theirs[side].ranks, KS)
        metrics = {}
        for name, drawn in draws[side].items():
            difference = drawn - draws[f"other {side}"][name]
            metrics[name] = _row(a[name], b[name], difference)
        sums = {"a": sums["a"] + a["Rsum"], "b": sums["b"] + b["Rsum"]}
        found[side] = {"metrics": metrics} | _first_places(
            mine[side], theirs[side], n_videos, metrics["R1"]["interval"], seed
        )
    total = sum(draws[side]["Rsum"] - draws[f"other {side}"]["Rsum"] for side in SIDES)
    return found | {"Rsum": _row(sums["a"], sums["b"], total)}


def _row(a: float, b: float, difference: np.ndarray) -> dict:
    return {"a": a, "b": b, "difference": a - b, "interval": limits(difference)}


def _first_places(
    mine: Queries, theirs: Queries, n_videos: int, interval: list[float], seed: int
) -> dict:
    hits = mine.ranks <= 0
    others = theirs.ranks <= 0
    per_video = mine.per_video(hits.astype(float) - others, n_videos)
    p = swap_test(per_video, seed=seed)
    leaves_out_zero = interval[0] > 0 or interval[1] < 0
    return {
        "won": int(np.count_nonzero(hits & ~others)),
        "lost": int(np.count_nonzero(others & ~hits)),
        "queries": len(hits),
        "p": p,
        "beyond_chance": bool(leaves_out_zero and p < _LEAST_P),
    }
