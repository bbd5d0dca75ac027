"""Dual softmax and query-bank normalisation: the published values, and orders that survive large
scores.
"""

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.evaluation import rerank


def scores(n: int = 12, m: int = 9, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(20, 5, (n, m)).astype(np.float32)


def naive_dsl(matrix: np.ndarray, temperature: float) -> np.ndarray:
    weights = np.exp(matrix.astype(np.float64) / temperature)
    return matrix * weights / weights.sum(axis=0) * len(matrix)


@pytest.mark.parametrize("temperature", [1.0, 10.0, 1000.0])
def test_dsl_is_the_published_product(temperature: float) -> None:
    np.testing.assert_allclose(
        rerank.dsl(scores(), temperature), naive_dsl(scores(), temperature), rtol=1e-4
    )


def test_dsl_order_ranks_like_the_product_where_it_does_not_underflow() -> None:
    matrix = np.abs(scores())

    assert (np.argsort(rerank.dsl_order(matrix)) == np.argsort(naive_dsl(matrix, 1.0))).all()


def test_dsl_order_tells_apart_what_underflows() -> None:
    matrix = np.array([[1.0, 2.0, 3.0], [800.0, 802.0, 805.0]])

    assert rerank.dsl(matrix)[0].tolist() == [0, 0, 0]
    assert np.argsort(rerank.dsl_order(matrix)[0]).tolist() == [2, 1, 0]


def test_dsl_order_keeps_negative_scores_below_and_in_order() -> None:
    matrix = np.array([[-3.0, -1.0, 0.0, 2.0], [-3.0, -1.0, 0.0, 2.0]])

    assert np.argsort(rerank.dsl_order(matrix)[0]).tolist() == [0, 1, 2, 3]


def test_dsl_order_keeps_zero_below_anything_positive() -> None:
    matrix = np.array([[0.0, 0.1], [0.0, 50.0]])

    assert np.argsort(rerank.dsl_order(matrix)[0]).tolist() == [0, 1]


def test_dsl_order_changes_nothing_it_was_given() -> None:
    matrix = scores()

    rerank.dsl_order(matrix)

    assert (matrix == scores()).all()


def test_transform_of_columns_leaves_the_other_direction_alone() -> None:
    matrix = np.abs(scores())

    assert (np.argsort(rerank.dsl(matrix).T) == np.argsort(matrix.T)).all()


def test_inverted_softmax_is_its_definition() -> None:
    matrix, bank = scores() / 100, scores(30, 9, seed=1) / 100

    expected = np.exp(20 * matrix) / np.exp(20 * bank).sum(axis=0)

    np.testing.assert_allclose(rerank.inverted_softmax(matrix, bank, 20), expected, rtol=1e-4)


def test_large_logits_do_not_overflow() -> None:
    matrix, bank = scores() * 100, scores(30, 9, seed=1) * 100

    assert np.isfinite(rerank.inverted_softmax_order(matrix, bank, 20)).all()


def test_only_rows_whose_top_item_is_active_are_normalised() -> None:
    matrix = np.array([[9, 1, 0], [0, 9, 1], [1, 0, 9]], np.float32)
    bank = np.array([[5, 1, 1], [5, 0, 1], [1, 5, 0]], np.float32)

    found = rerank.qb_norm(matrix, bank, beta=1.0)

    assert found.activated.tolist() == [0, 1]
    assert found.rows.tolist() == [0, 1]
    assert found.scores[2].tolist() == [1, 0, 9]


def test_theta_asks_for_several_occurrences() -> None:
    bank = np.array([[5, 1, 1], [5, 0, 1], [1, 5, 0]], np.float32)

    assert rerank.activation_set(bank, k=1, theta=2).tolist() == [0]
    assert rerank.activation_set(bank, k=2, theta=1).tolist() == [0, 1, 2]


def test_order_and_published_values_rank_alike() -> None:
    matrix, bank = scores() / 100, scores(30, 9, seed=1) / 100

    ordered, published = (rerank.qb_norm(matrix, bank, order=flag).scores for flag in (True, False))

    assert (np.argsort(ordered) == np.argsort(published)).all()


def test_bank_of_another_gallery_is_refused() -> None:
    with pytest.raises(DataError, match="8 columns, the gallery 9"):
        rerank.check_bank(scores(), scores(4, 8), "bank.npy")
