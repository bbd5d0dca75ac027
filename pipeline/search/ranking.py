"""Rank the rows of a collection for one query.

Where products of summaries are the score, every row is compared: in float16 straight from the map,
then all rows that rounding may have put in a wrong place again in float32. Else the products choose
candidates and the model scores those. What cannot be chosen for is scored as a whole.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.search.collection import Collection
from pipeline.search.products import ROUNDING, exact_products, products

CANDIDATES = 200  # scored by the model where summaries choose
_SMALL = 1_000  # rows that are scored without a choice
_BLOCK = 1_024
_SAME = 1e-6  # of scores around 1: float32 rounds a sum of products by less
_GROWTH = 8

Scorer = Callable[[dict[str, np.ndarray], list[str]], np.ndarray]


@dataclass(frozen=True)
class Query:
    """What is asked. vector (S,) float32: its products with summaries, None without summaries.

    score: of encodings of rows and their names, float32 (n,); None where the products are it.
    whole: a row's score depends on which rows are asked about, so all of them are, at once.
    """

    vector: np.ndarray | None
    score: Scorer | None
    whole: bool = False


@dataclass(frozen=True)
class Choice:
    """Which rows are answers. wanted: bool (rows,), None: all; top: how many, None: all."""

    top: int | None = 10
    wanted: np.ndarray | None = None
    per_video: int = 0
    min_score: float | None = None
    exact: bool = False


@dataclass(frozen=True)
class Ranked:
    """rows int64 (k,), best first, their scores float32, and how many rows have each of them, as
    `count_equal` counts.

    considered: rows whose score was computed exactly; all of them unless candidates were chosen.
    """

    rows: np.ndarray
    scores: np.ndarray
    tied: np.ndarray
    considered: int


def rank(collection: Collection, query: Query, choice: Choice = Choice()) -> Ranked:
    """Return the best rows of a collection. Equal scores keep the order of the collection."""
    rows = _rows(collection, choice)
    if query.score is None:
        return _by_products(collection, query, choice, rows)
    wanted = len(rows) if choice.top is None else max(CANDIDATES, 4 * choice.top)
    everything = choice.exact or collection.is_small or query.vector is None
    if not everything and len(rows) > max(wanted, _SMALL):
        rows = _candidates(collection, query.vector, rows, wanted, choice)
    return _answers(collection, choice, rows, _scored(collection, query, rows))


def _rows(collection: Collection, choice: Choice) -> np.ndarray:
    if choice.wanted is None:
        return np.arange(collection.rows)
    return np.flatnonzero(choice.wanted)


def _by_products(collection: Collection, query: Query, choice: Choice, rows: np.ndarray) -> Ranked:
    """Exact: the first pass is wrong by its rounding at most, and what that may hide is redone."""
    summaries, vector = collection.summaries, query.vector
    if choice.top is None or len(rows) <= _BLOCK or summaries.dtype != np.float16:
        return _answers(collection, choice, rows, exact_products(summaries, vector, rows))
    length = float(np.linalg.norm(vector)) or 1.0
    if collection.approximate is not None and choice.wanted is None and not choice.exact:
        near = np.sort(collection.approximate.nearest(vector, max(CANDIDATES, 8 * choice.top)))
        return _answers(collection, choice, near, exact_products(summaries, vector, near))
    rough = products(summaries, vector / length)[rows]
    margin = ROUNDING * collection.longest
    wanted = max(64, 2 * choice.top)
    while True:
        wanted = min(wanted, len(rows))
        least = np.partition(rough, len(rows) - wanted)[len(rows) - wanted] - 2 * margin
        near = rows[rough >= least]
        found = _answers(collection, choice, near, exact_products(summaries, vector, near))
        is_low = choice.min_score is not None and (least + margin) * length < choice.min_score
        if wanted == len(rows) or len(found.rows) >= choice.top or is_low:
            # the least answer is above all rows that were left out, or those are not wanted
            return Ranked(found.rows, found.scores, found.tied, len(rows))
        wanted *= _GROWTH


def _candidates(
    collection: Collection, vector: np.ndarray, rows: np.ndarray, wanted: int, choice: Choice
) -> np.ndarray:
    """Return the rows that the products put first, in the order of the collection."""
    length = float(np.linalg.norm(vector)) or 1.0
    if collection.approximate is not None and choice.wanted is None:
        return np.sort(collection.approximate.nearest(vector, wanted))
    rough = products(collection.summaries, (vector / length).astype(np.float32))[rows]
    if choice.per_video == 1:  # the best row of each video stands for it
        order = np.argsort(-rough, kind="stable")
        _, first = np.unique(collection.videos[rows[order]], return_index=True)
        return np.sort(rows[order[np.sort(first)[:wanted]]])
    return np.sort(rows[np.argpartition(-rough, wanted)[:wanted]])


def _scored(collection: Collection, query: Query, rows: np.ndarray) -> np.ndarray:
    score = query.score
    if len(rows) <= _BLOCK or collection.is_small or query.whole:
        return score(collection.encodings(rows), collection.names(rows))
    parts = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    return np.concatenate([score(collection.encodings(p), collection.names(p)) for p in parts])


def _answers(
    collection: Collection, choice: Choice, rows: np.ndarray, scores: np.ndarray
) -> Ranked:
    order = np.argsort(-scores, kind="stable")
    if choice.min_score is not None:
        order = order[scores[order] >= choice.min_score]
    if choice.per_video:
        order = order[_turn(collection.videos[rows[order]]) < choice.per_video]
    order = order[: choice.top]
    return Ranked(rows[order], scores[order], count_equal(scores, scores[order]), len(rows))


def are_equal(score: float, other: float) -> bool:
    """Return whether two scores differ by no more than rounding.

    A processor rounds the score of one video differently at different places of a block.
    """
    return abs(score - other) <= _SAME * max(1.0, abs(score))


def count_equal(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return how many of scores (n,) equal each of wanted (k,) up to rounding, int64 (k,)."""
    ranked = np.sort(scores)
    reach = _SAME * np.maximum(1.0, np.abs(wanted))
    return np.searchsorted(ranked, wanted + reach, "right") - np.searchsorted(
        ranked, wanted - reach, "left"
    )


def _turn(videos: np.ndarray) -> np.ndarray:
    """Ordinal of each entry among the entries of its kind, from 0."""
    order = np.argsort(videos, kind="stable")
    ordered = videos[order]
    turn = np.empty(len(videos), np.int64)
    turn[order] = np.arange(len(videos)) - np.searchsorted(ordered, ordered)
    return turn
