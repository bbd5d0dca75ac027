"""How sure a metric is: what a person who checks it by hand finds."""

import numpy as np
import pytest

from pipeline.evaluation.intervals import (
    Queries,
    bootstrap,
    intervals,
    of_evaluation,
    swap_test,
)
from pipeline.evaluation.metrics import evaluate, summary


def queries(ranks: list[float], videos: list[int], **options: str) -> dict[str, Queries]:
    return {"t2v": Queries(np.array(ranks, dtype=float), np.array(videos), **options)}


def test_an_interval_of_half_the_queries_is_as_wide_as_the_binomial_one() -> None:
    found = intervals(queries([0, 9] * 200, list(range(400))), 400)["t2v"]["R1"]

    # two standard deviations of a share of 0.5 of 400 queries: 1.96 * 2.5
    assert found == pytest.approx([45.1, 54.9], abs=0.7)


def test_captions_of_one_video_stay_together() -> None:
    alone = intervals(queries([0, 9] * 50, list(range(100))), 100)["t2v"]["R1"]
    of_ten = intervals(queries([0] * 50 + [9] * 50, sorted(list(range(10)) * 10)), 10)["t2v"]["R1"]

    # ten videos, not a hundred captions: about three times as wide
    assert 2 < (of_ten[1] - of_ten[0]) / (alone[1] - alone[0]) < 4


def test_draws_are_the_metrics_of_the_drawn_videos() -> None:
    random = np.random.default_rng(3)
    ranks, videos = random.integers(12, size=30).astype(float), random.integers(7, size=30)
    videos[:7] = range(7)
    draws = bootstrap(queries(ranks, videos), 7, seed=5, resamples=20)["t2v"]

    drawn = np.random.default_rng(5).integers(7, size=(20, 7))
    for place, of_draw in enumerate(drawn):
        entries = np.concatenate([ranks[videos == video] for video in of_draw])
        expected = summary(entries, (1, 5, 10))
        assert {name: values[place] for name, values in draws.items()} == pytest.approx(
            {name: expected[name] for name in draws}
        )


def test_the_seed_decides_and_the_size_of_a_block_does_not(monkeypatch) -> None:
    sides = queries([0, 3, 1, 7, 0, 2], [0, 0, 1, 2, 3, 3])
    found = intervals(sides, 4)
    monkeypatch.setattr("pipeline.evaluation.intervals._BLOCK_NUMBERS", 9)

    assert intervals(sides, 4) == found
    assert intervals(sides, 4, seed=1) != found


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic", "average", "expanded"])
def test_an_evaluation_lies_within_its_intervals_under_every_policy(ties: str) -> None:
    random = np.random.default_rng(0)
    target = np.repeat(np.arange(40), 2)
    scores = random.normal(size=(80, 40)).round(1)
    scores[np.arange(80), target] += 1
    found = evaluate(scores, scores.T, target, ties=ties)

    limits = of_evaluation(found, target, ks=(1, 50))

    for side in ("t2v", "v2t"):
        for name in ("R1", "R50", "MdR", "MnR", "Rsum"):
            low, high = limits[side][name]
            assert low <= found.metrics[side][name] <= high
    assert limits["videos"] == 40


def test_swaps_of_two_models_give_the_share_that_counting_gives() -> None:
    # five videos that one model alone gets right: 2 of the 32 tosses are as one-sided
    assert swap_test(np.array([1.0] * 5 + [0.0] * 9)) == pytest.approx(2 / 32, abs=0.01)
    assert swap_test(np.zeros(4)) == 1
    assert swap_test(np.ones(30)) == pytest.approx(1 / 10_001)
