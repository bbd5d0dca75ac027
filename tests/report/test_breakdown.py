"""Attributes of top answers, best and worst queries, chance."""

import numpy as np
import pytest

from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.retrieve import Result
from pipeline.report import breakdown

COLOURS = [{"colour": "red"}, {"colour": "red"}, {"colour": "blue"}, {}]


def result(t2v: np.ndarray, target: np.ndarray) -> Result:
    return Result("none", {}, evaluate(t2v, t2v.T, target), t2v, t2v.T)


def test_a_top_answer_with_the_same_attribute_is_right_though_it_is_another_video() -> None:
    t2v = np.array([[0, 9, 1, 0], [0, 0, 9, 0], [0, 0, 9, 0]], float)

    rates = breakdown.attribute_rates(t2v, np.array([0, 1, 2]), COLOURS)

    assert rates["colour"]["right"] == pytest.approx(200 / 3)
    assert rates["colour"]["n"] == 3


def test_chance_is_the_share_of_the_gallery_with_the_value() -> None:
    rates = breakdown.attribute_rates(np.eye(4), np.array([0, 1, 2, 3]), COLOURS)

    assert rates["colour"]["chance"] == pytest.approx(100 * (2 + 2 + 1) / 12)


def test_answers_that_tie_count_by_their_share() -> None:
    rates = breakdown.attribute_rates(np.array([[5.0, 0, 5, 0]]), np.array([0]), COLOURS)

    assert rates["colour"]["right"] == 50.0


def test_no_attributes_give_no_rates() -> None:
    assert breakdown.attribute_rates(np.eye(2), np.arange(2), [{}, {}]) == {}


def test_best_and_worst_queries_are_ordered_by_rank_then_margin() -> None:
    t2v = np.array([[5, 1, 0], [0, 9, 1], [8, 9, 7]], float)
    captions = [(str(n), f"caption {n}") for n in range(3)]

    found = breakdown.examples(
        result(t2v, np.arange(3)), np.arange(3), captions, ["a", "b", "c"], count=2
    )

    assert [query["video"] for query in found["best"]] == ["b", "a"]
    assert [(query["video"], query["rank"]) for query in found["worst"]] == [("c", 3)]
    assert found["worst"][0]["answers"][0] == {"video": "b", "score": 9.0}


def test_won_queries_are_shown_from_the_clearest_to_the_closest() -> None:
    t2v = np.diag([9.0, 8, 7, 6, 5])
    captions = [(str(n), f"caption {n}") for n in range(5)]

    found = breakdown.examples(
        result(t2v, np.arange(5)), np.arange(5), captions, ["a", "b", "c", "d", "e"], count=3
    )

    assert [query["video"] for query in found["best"]] == ["a", "c", "e"]
    assert found["worst"] == []


def test_examples_show_each_video_once() -> None:
    t2v, target = np.array([[5, 1], [6, 1], [1, 2]], float), np.array([0, 0, 1])
    captions = [("x", "x"), ("y", "y"), ("z", "z")]

    found = breakdown.examples(result(t2v, target), target, captions, ["a", "b"], count=5)

    assert [query["caption"] for query in found["best"]] == ["y", "z"]


def test_chance_of_several_captions_is_higher() -> None:
    found = breakdown.chance(np.repeat(np.arange(4), 2), 4, (1, 5, 10), "captions")

    assert found["t2v"]["R1"] == 25.0
    assert found["v2t"]["R1"] == pytest.approx(25.0)
    assert found["v2t"]["R5"] == pytest.approx(100 * (1 - (3 * 2) / (8 * 7)))
    assert found["v2t"]["R10"] == 100.0
