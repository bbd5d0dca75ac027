"""Retrieval metrics from a score matrix: ranks by counting, tie policies, several captions per
video.

Rows are queries everywhere: t2v (N_t, N_v), v2t (N_v, N_t). A query's rank needs two counts and no
sorting: `above`, the gallery items that score strictly higher than its own item, and `tied`, the
others that score exactly the same. Zero-based rank by policy: optimistic a, pessimistic a + e,
average a + e/2, expanded a, a+1, ..., a+e (one entry each).

Source: docs/specs/metrics.md; the policies and where each is used are in its section 1.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pipeline.errors import DataError

Ties = Literal["pessimistic", "optimistic", "average", "expanded"]
Convention = Literal["captions", "groups"]
Median = Literal["mean", "lower"]
TIES, CONVENTIONS = get_args(Ties), get_args(Convention)
KS = (1, 5, 10, 50)
_BLOCK_BYTES = (
    8 << 20
)  # of scores compared at a time: stays in the cache, and temporaries stay small


@dataclass(frozen=True)
class Counts:
    """Per query, int64 (n,): items above the own item, items of others tied with it, and own items
    tied with it.

    own is 0 everywhere unless a query has several true items (video-to-text over all captions).
    True items of one query never count against it; only the published "average" of
    collaborative-experts adds them (`own_ties`).
    """

    above: np.ndarray
    tied: np.ndarray
    own: np.ndarray

    @property
    def n_tied(self) -> int:
        """Number of queries whose rank depends on the tie policy."""
        return int(np.count_nonzero(self.tied))

    def ranks(self, ties: Ties = "pessimistic", own_ties: bool = False) -> np.ndarray:
        """Zero-based ranks, float64: one per query, in query order; under "expanded" tied + 1
        entries per query.
        """
        tied = self.tied + self.own if own_ties else self.tied
        if ties == "expanded":
            first = np.repeat(self.above, tied + 1)
            within = np.arange(len(first)) - np.repeat(np.cumsum(tied + 1) - (tied + 1), tied + 1)
            return (first + within).astype(np.float64)
        share = {"optimistic": 0.0, "average": 0.5, "pessimistic": 1.0}[ties]
        return self.above + share * tied


def count(scores: np.ndarray, target: np.ndarray) -> Counts:
    """Counts for queries with one true item each. scores (n, m); target int64 (n,), the column of
    the true item.
    """
    true = np.take_along_axis(scores, np.asarray(target)[:, None], axis=1)
    above, equal = _compare(scores, true)
    return Counts(above, equal - 1, np.zeros_like(above))


def count_best(scores: np.ndarray, owner: np.ndarray) -> Counts:
    """Counts for the best-scoring of several true items. scores (n, m); owner int64 (m,): the query
    of each column.

    Every query must own a column. Ranks therefore lie in 0 .. m - number of own columns.
    """
    order = np.argsort(owner, kind="stable")
    rows, columns = owner[order], order
    mine = scores[rows, columns]
    starts = np.searchsorted(rows, np.arange(len(scores)))
    true = np.maximum.reduceat(mine, starts)
    above, equal = _compare(scores, true[:, None])
    own = np.add.reduceat((mine == true[rows]).astype(np.int64), starts)
    return Counts(above, equal - own, own - 1)


def count_relevant(scores: np.ndarray, relevant: np.ndarray) -> Counts:
    """Counts for the best-scoring of any true items: relevant bool (n, m), at least one True in
    each row.

    For galleries in which an item may answer several queries and occur twice; needs a matrix as
    large as the scores.
    """
    true = np.max(scores, axis=1, keepdims=True, where=relevant, initial=-np.inf)
    above, equal = _compare(scores, true)
    own = np.count_nonzero((scores == true) & relevant, axis=1)
    return Counts(above, equal - own, own - 1)


def _compare(scores: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per row, how many scores are above and how many are equal to true (n, 1)."""
    above = np.empty(len(scores), dtype=np.int64)
    equal = np.empty(len(scores), dtype=np.int64)
    step = max(1, _BLOCK_BYTES // max(1, scores.shape[1] * scores.itemsize))
    for start in range(0, len(scores), step):
        part = slice(start, start + step)
        above[part] = np.count_nonzero(scores[part] > true[part], axis=1)
        equal[part] = np.count_nonzero(scores[part] == true[part], axis=1)
    return above, equal


def group_best(v2t: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Scores (n, groups) of caption groups: the best caption of each. v2t (n, C); owner int64 (C,),
    no group empty.
    """
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(int(owner.max()) + 1))
    return np.maximum.reduceat(v2t[:, order], starts, axis=1)


def count_v2t(
    v2t: np.ndarray, owner: np.ndarray, convention: Convention = "captions"
) -> tuple[Counts, np.ndarray]:
    """Counts of the videos that have a caption, and their rows in v2t (N_v, N_t). owner int64
    (N_t,): of each caption.

    captions: rank of the best own caption among all captions (Dual Encoding family, qb-norm).
    groups: rank of the own group among the groups, each scored by its best caption (CLIP4Clip
    family). The two give different numbers on the same matrix; groups are easier.
    """
    rows, group = np.unique(owner, return_inverse=True)
    scores = v2t if len(rows) == len(v2t) else v2t[rows]
    if convention == "captions":
        return count_best(scores, group), rows
    return count(group_best(scores, group), np.arange(len(rows))), rows


def summary(
    ranks: np.ndarray, ks: tuple[int, ...] = KS, median: Median = "mean"
) -> dict[str, float]:
    """R<k> for each k and Rsum (of R1, R5, R10) in percent, MdR, MnR (counted from 1), n entries.
    ranks: zero-based.

    median: "mean" of the two middle values (NumPy), or the "lower" of them (torch: multi-caption
    text-to-video of the CLIP4Clip family).
    """
    if not len(ranks):
        raise DataError(
            "there are no queries to rank", where="metrics", fix="Choose a split that has captions."
        )
    # an averaged rank of 0.5 shares the first place and has not won it: R@1 asks for rank 0
    # (qb-norm does the same)
    recall = {
        k: 100.0 * int(np.count_nonzero(ranks < k if k > 1 else ranks <= 0)) / len(ranks)
        for k in {1, 5, 10, *ks}
    }
    middle = np.median(ranks) if median == "mean" else np.sort(ranks)[(len(ranks) - 1) // 2]
    return {f"R{k}": recall[k] for k in ks} | {
        "MdR": float(middle) + 1,
        "MnR": float(np.mean(ranks)) + 1,
        "Rsum": recall[1] + recall[5] + recall[10],
        "n": len(ranks),
    }


def geometric_mean(values: dict[str, float]) -> float:
    """Geometric mean of R1, R5 and R10 (qb-norm and frozen-in-time report it); 0 if one of them is
    0.
    """
    return float(np.prod([values["R1"], values["R5"], values["R10"]]) ** (1 / 3))


def mean_average_precision(scores: np.ndarray, owner: np.ndarray) -> float:
    """Mean over queries of the average precision of their true items, 0 to 1. scores (n, m); owner
    int64 (m,).

    Items of others that tie with a true item stand before it (pessimistic). Source: hybrid_space
    prints it both ways.
    """
    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], np.arange(len(scores) + 1))
    precision = np.empty(len(scores))
    for i, row in enumerate(scores):
        columns = order[ends[i] : ends[i + 1]]
        own = -np.sort(-row[columns])
        not_below = np.count_nonzero(row[None, :] >= own[:, None], axis=1)
        own_not_below = np.count_nonzero(own[None, :] >= own[:, None], axis=1)
        found = np.arange(1, len(own) + 1)
        precision[i] = np.mean(found / (not_below - own_not_below + found))
    return float(precision.mean())


def check_finite(scores: np.ndarray, where: object = "scores") -> None:
    """DataError with the counts if a score is NaN or infinite: such a query would silently win,
    lose or disappear.
    """
    bad = ~np.isfinite(scores)
    if not bad.any():
        return
    n_nan = int(np.count_nonzero(np.isnan(scores)))
    row, column = np.argwhere(bad)[0]
    raise DataError(
        f"{n_nan:,} NaN and {int(bad.sum()) - n_nan:,} infinite scores in"
        f" {int(bad.any(axis=1).sum()):,} of {len(scores):,} rows, first at [{row}, {column}]",
        where=where,
        fix=(
            "A zero or overflowing feature vector gives such scores: find the item and encode it"
            " again."
        ),
    )


@dataclass(frozen=True)
class Evaluation:
    """Metrics of both directions with the counts they come from. v2t_rows: the videos that have a
    caption.
    """

    metrics: dict
    t2v: Counts
    v2t: Counts
    v2t_rows: np.ndarray


def evaluate(
    t2v: np.ndarray,
    v2t: np.ndarray,
    target: np.ndarray,
    *,
    ties: Ties = "pessimistic",
    convention: Convention = "captions",
    ks: tuple[int, ...] = KS,
    t2v_median: Median = "mean",
) -> Evaluation:
    """Return both directions: t2v (N_t, N_v), v2t (N_v, N_t), target int64 (N_t,): gallery column
    of each text's own video.

    metrics: {"t2v": {R1, ..., MdR, MnR, Rsum, n, tied}, "v2t": {...}, "Rsum", "n" texts, "videos",
    "tied" queries both ways, "tie_policy", "v2t_definition"}; R in percent. Under "expanded" a
    direction's n counts entries. t2v_median:
    how the median of an even number of texts is taken (noted if "lower").
    """
    texts = count(t2v, target)
    videos, rows = count_v2t(v2t, target, convention)
    values = {
        name: summary(counts.ranks(ties), ks, median) | {"tied": counts.n_tied}
        for name, counts, median in (("t2v", texts, t2v_median), ("v2t", videos, "mean"))
    }
    values |= {
        "Rsum": values["t2v"]["Rsum"] + values["v2t"]["Rsum"],
        "n": len(t2v),
        "videos": len(v2t),
        "tied": texts.n_tied + videos.n_tied,
        "tie_policy": ties,
        "v2t_definition": convention,
    } | ({"t2v_median": t2v_median} if t2v_median != "mean" else {})
    return Evaluation(values, texts, videos, rows)


def average_precisions(found: Evaluation, v2t: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Mean average precision of each direction, {"t2v", "v2t"}, 0 to 1.

    v2t (N_v, N_t) and target int64 (N_t,): as `evaluate` got them when it gave `found`. A text has
    one true video, so its precision is 1 / rank; a video is ranked over all captions. Ties count
    against the query. Source: danieljf24/hybrid_space prints it both ways.
    """
    _, owner = np.unique(target, return_inverse=True)
    return {
        "t2v": float(np.mean(1 / (found.t2v.ranks("pessimistic") + 1))),
        "v2t": mean_average_precision(v2t[found.v2t_rows], owner),
    }
