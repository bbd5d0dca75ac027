"""Ranks by counting, tie policies, several captions per video."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import (
    count,
    count_best,
    count_relevant,
    count_v2t,
    evaluate,
    summary,
)

TIED = np.array(
    [[3, 3, 3, 1], [5, 2, 2, 9], [1, 1, 7, 1], [4, 4, 4, 4]], np.float32
)  # own items on the diagonal


def by_sorting(scores: np.ndarray, target: np.ndarray) -> list[int]:
    """Zero-based pessimistic ranks the slow way."""
    return [
        int(sum(s >= row[t] for s in row)) - 1
        for row, t in zip(scores.tolist(), target, strict=True)
    ]


@pytest.mark.parametrize(
    ("ties", "expected"),
    [
        ("optimistic", [0, 2, 0, 0]),
        ("pessimistic", [2, 3, 0, 3]),
        ("average", [1, 2.5, 0, 1.5]),
        ("expanded", [0, 1, 2, 2, 3, 0, 0, 1, 2, 3]),
    ],
)
def test_tie_policies_give_the_ranks_of_their_definition(ties: str, expected: list[float]) -> None:
    counts = count(TIED, np.arange(4))

    assert counts.ranks(ties).tolist() == expected
    assert counts.n_tied == 3


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_counting_equals_comparing_with_every_item(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (n, m)).astype(np.float32)
    target = rng.integers(0, m, n)

    assert count(scores, target).ranks("pessimistic").tolist() == by_sorting(scores, target)


@given(st.integers(0, 2**32 - 1))
def test_best_own_item_is_ranked_as_by_the_general_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, (4, 11)).astype(np.float32)
    owner = rng.permutation(np.concatenate([np.arange(4), rng.integers(0, 4, 7)]))

    fast, slow = (
        count_best(scores, owner),
        count_relevant(scores, owner[None, :] == np.arange(4)[:, None]),
    )

    for name in ("above", "tied", "own"):
        assert getattr(fast, name).tolist() == getattr(slow, name).tolist()


def test_own_captions_never_count_against_a_video() -> None:
    v2t = np.array([[5, 5, 5, 1], [0, 0, 0, 9]], np.float32)

    counts, _ = count_v2t(v2t, np.array([0, 0, 1, 1]), "captions")

    assert counts.ranks("pessimistic").tolist() == [1, 0]
    assert counts.own.tolist() == [1, 0]


def test_groups_are_ranked_by_their_best_caption() -> None:
    v2t = np.array([[1, 6, 5, 5], [7, 7, 6, 0]], np.float32)

    groups, _ = count_v2t(v2t, np.array([0, 0, 1, 1]), "groups")
    captions, _ = count_v2t(v2t, np.array([0, 0, 1, 1]), "captions")

    assert groups.ranks().tolist() == [0, 1]
    assert captions.ranks().tolist() == [0, 2]


def test_captions_of_a_video_need_not_be_consecutive() -> None:
    rng = np.random.default_rng(1)
    v2t, owner = rng.random((5, 15)), np.repeat(np.arange(5), 3)
    order = rng.permutation(15)

    for convention in metrics.CONVENTIONS:
        straight, mixed = (
            count_v2t(v2t, owner, convention)[0],
            count_v2t(v2t[:, order], owner[order], convention)[0],
        )
        assert straight.ranks().tolist() == mixed.ranks().tolist()


def test_a_video_without_captions_is_in_the_gallery_but_asks_nothing() -> None:
    t2v = np.array([[1.0, 0.5, 2.0], [0.0, 1.0, 0.5]])

    found = evaluate(t2v, t2v.T, np.array([0, 1]))

    assert found.metrics["t2v"]["R1"] == 50.0
    assert found.metrics["v2t"]["n"] == 2
    assert found.v2t_rows.tolist() == [0, 1]


def test_summary_names_what_the_design_names() -> None:
    found = evaluate(np.eye(4), np.eye(4), np.arange(4)).metrics

    assert list(found["t2v"])[:7] == ["R1", "R5", "R10", "R50", "MdR", "MnR", "Rsum"]
    assert found["t2v"]["Rsum"] == 300.0
    assert (found["n"], found["tie_policy"], found["tied"]) == (4, "pessimistic", 0)


def test_a_shared_first_place_is_not_won() -> None:
    values = summary(np.array([0.5, 0.0, 4.5]))

    assert values["R1"] == pytest.approx(100 / 3)
    assert values["R5"] == 100.0


def test_lower_median_is_the_lower_of_the_two_middle_values() -> None:
    ranks = np.array([0, 1, 4, 9])

    assert summary(ranks)["MdR"] == 3.5
    assert summary(ranks, median="lower")["MdR"] == 2


def test_average_precision_counts_every_true_item() -> None:
    scores = np.array([[9, 8, 7, 6], [1, 2, 3, 4]], np.float32)
    owner = np.array([0, 1, 0, 1])

    first, second = (1 + 2 / 3) / 2, (1 + 2 / 3) / 2

    assert metrics.mean_average_precision(scores, owner) == pytest.approx((first + second) / 2)


def test_blocks_do_not_change_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, target = np.random.default_rng(0).random((50, 40)), np.arange(50) % 40
    whole = count(scores, target).ranks().tolist()

    monkeypatch.setattr(metrics, "_BLOCK_BYTES", 1000)

    assert count(scores, target).ranks().tolist() == whole


def test_nan_is_an_error_that_says_how_many_and_where() -> None:
    scores = np.ones((4, 5))
    scores[1, 2] = scores[3, 0] = np.nan
    scores[3, 1] = np.inf

    with pytest.raises(
        DataError, match=r"2 NaN and 1 infinite scores in 2 of 4 rows, first at \[1, 2\]"
    ):
        metrics.check_finite(scores)


def test_no_queries_is_an_error() -> None:
    with pytest.raises(DataError, match="no queries"):
        summary(np.array([]))


def test_permuting_the_gallery_changes_no_rank() -> None:
    rng = np.random.default_rng(2)
    scores, target, order = rng.random((20, 9)), rng.integers(0, 9, 20), rng.permutation(9)

    moved = count(scores[:, order], np.argsort(order)[target])

    assert moved.ranks().tolist() == count(scores, target).ranks().tolist()
