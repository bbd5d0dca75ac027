"""Rows are ranked exactly, whatever float16 rounds; ties, filters and limits are kept."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.search.ranking import Choice, Query, rank


@dataclass
class Rows:
    """A collection of float16 rows, so many of them in each video."""

    summaries: np.ndarray
    per_video: int = 2
    is_small: bool = False
    approximate: None = None
    statistics: dict = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.summaries)

    @property
    def videos(self) -> np.ndarray:
        return np.arange(self.rows) // self.per_video

    @property
    def longest(self) -> float:
        return float(np.linalg.norm(self.summaries.astype(np.float32), axis=1).max())

    def encodings(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"summary": self.summaries[rows]}

    def names(self, rows: np.ndarray) -> list[str]:
        return [str(row) for row in rows]


@pytest.fixture(scope="module")
def crowd() -> tuple[Rows, np.ndarray]:
    """5,000 rows that differ by less than float16 can say of their products."""
    rng = np.random.default_rng(0)
    one = rng.standard_normal(64)
    rows = one + 0.002 * rng.standard_normal((5_000, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Rows(rows.astype(np.float16)), (one / np.linalg.norm(one)).astype(np.float32)


def test_best_rows_are_those_of_float32(crowd) -> None:
    rows, query = crowd

    found = rank(rows, Query(query, None), Choice(top=20))

    true = rows.summaries.astype(np.float64) @ query.astype(np.float64)
    assert true[found.rows] == pytest.approx(np.sort(true)[::-1][:20], abs=1e-7)


def test_a_video_answers_as_often_as_it_may(crowd) -> None:
    rows, query = crowd

    found = rank(rows, Query(query, None), Choice(top=200, per_video=1))

    assert len(found.rows) == len(set(rows.videos[found.rows].tolist())) == 200


def test_equal_rows_are_a_tie_beyond_the_answers_shown() -> None:
    rows = Rows(np.tile(np.array([[1, 0]], np.float16), (3_000, 1)))

    found = rank(rows, Query(np.array([1, 0], np.float32), None), Choice(top=3))

    assert found.rows.tolist() == [0, 1, 2] and found.tied.tolist() == [3_000] * 3


def test_rows_of_less_than_the_least_score_are_no_answers(crowd) -> None:
    rows, query = crowd

    assert not len(rank(rows, Query(query, None), Choice(top=5, min_score=1.5)).rows)


def test_only_wanted_rows_are_answers(crowd) -> None:
    rows, query = crowd
    wanted = np.arange(rows.rows) % 7 == 0

    found = rank(rows, Query(query, None), Choice(top=50, wanted=wanted))

    assert (found.rows % 7 == 0).all() and len(found.rows) == 50


def test_candidates_are_scored_by_the_model_and_all_rows_when_asked(crowd) -> None:
    rows, query = crowd
    asked: list[int] = []

    def score(encodings: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
        asked.append(len(names))
        return -(encodings["summary"].astype(np.float32) @ query)

    rank(rows, Query(query, score), Choice(top=5))
    some, asked[:] = sum(asked), []
    rank(rows, Query(query, score), Choice(top=5, exact=True))

    assert some == 200 and sum(asked) == 5_000
