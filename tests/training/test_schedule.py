"""Schedules against the recorded traces, the published formulas in plain code, and their own
promises.
"""

import json
import math

import numpy as np
import pytest

from pipeline.recipes.options import ScheduleOptions
from pipeline.training.schedule import Schedule

PUBLISHED = {"name": "plateau", "on_best": 0.99, "factor": 0.5, "wait": 3, "reload_best": True}
SUMS = {
    "total_sum_r": lambda v2t, t2v: v2t + t2v,
    "t2v_sum_r": lambda v2t, t2v: t2v,
    "v2t_sum_r": lambda v2t, t2v: v2t,
}


def make(tie="first", stop_after=None, lr=1.0, horizon=100, **options) -> Schedule:
    return Schedule(
        ScheduleOptions(**options), lr=lr, horizon_steps=horizon, tie=tie, stop_after=stop_after
    )


@pytest.mark.parametrize("run", [0, 1, 2])
def test_plateau_follows_the_recorded_trace(golden, run):
    folder = golden / "dual-encoding" / "schedule"
    case = json.loads((folder / "case.json").read_text())["runs"][run]
    trace = np.load(folder / "outputs.npz")[f"run{run}"]
    schedule = make(
        "last",
        case["early_stop_patience_cnt"],
        case["lr"],
        name="plateau",
        reload_best=True,
        on_best=case["lr_decay_rate"],
        factor=case["lr_decay_patience_rate"],
        wait=case["lr_decay_patience_cnt"],
    )

    for _, v2t, t2v, lr, best, patience, saved, reloaded, stopped, _ in trace:
        verdict = schedule.judge(SUMS[case["val_metric"]](v2t, t2v))

        assert (verdict.is_best, verdict.reload_best, verdict.stop) == (saved, reloaded, stopped)
        assert schedule.lr(0) == pytest.approx(lr, abs=1e-12)
        assert schedule.best == best
        assert stopped or schedule.patience == patience


def test_cosine_is_the_published_function_of_the_step():
    lr, warmup, steps = 5e-3, 0.1, 100
    schedule = make(lr=lr, horizon=steps, name="cosine", warmup=warmup, floor=1e-8)

    for step in range(steps):
        if step <= warmup * steps:
            expected = min(lr, step / (warmup * steps) * (lr - 1e-8) + 1e-8)
        else:
            expected = max(1e-8, lr / 2 * (1 + math.cos(math.pi * (step - 10) / 90)))
        assert schedule.lr(step) == pytest.approx(expected, rel=1e-12)


def test_bert_cosine_starts_at_zero_and_drops_after_the_warm_up():
    schedule = make(name="bert_cosine", warmup=0.1)

    assert schedule.lr(0) == 0
    assert schedule.lr(9) == pytest.approx(0.9)
    assert schedule.lr(10) == pytest.approx(0.9755, abs=1e-4)
    assert schedule.lr(50) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["cosine", "bert_cosine", "linear"])
def test_rate_stays_at_the_floor_beyond_the_horizon(name):
    schedule = make(name=name, floor=0.01)

    assert [schedule.lr(step) for step in (100, 101, 150, 1000)] == pytest.approx([0.01] * 4)


def test_linear_falls_evenly_after_the_warm_up():
    schedule = make(name="linear", warmup=0.5)

    assert [schedule.lr(s) for s in (0, 25, 50, 75, 100)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_no_warm_up_starts_at_the_full_rate():
    assert make(name="cosine", warmup=0).lr(0) == 1
    assert make(name="constant", warmup=0).lr(0) == 1


@pytest.mark.parametrize(("tie", "expected"), [("first", False), ("last", True)])
def test_tie_decides_which_of_two_equal_validations_is_best(tie, expected):
    schedule = make(tie, name="constant")
    schedule.judge(5.0)

    assert schedule.judge(5.0).is_best is expected


def test_curves_stop_early_but_never_cut_the_rate():
    schedule = make(stop_after=3, name="constant", warmup=0)
    verdicts = [schedule.judge(score) for score in (5, 4, 3, 2)]

    assert [v.stop for v in verdicts] == [False, False, False, True]
    assert not any(v.reload_best for v in verdicts)
    assert schedule.lr(50) == 1


def test_restored_schedule_goes_on_like_the_original():
    first, second = make(stop_after=4, **PUBLISHED), make(stop_after=4, **PUBLISHED)
    for score in (5, 4, 6, 2, 3):
        first.judge(score)

    second.restore(first.state())

    assert [second.judge(s) for s in (1, 1, 9)] == [first.judge(s) for s in (1, 1, 9)]
    assert second.lr(7) == first.lr(7)


def test_ancestors_plateau_falls_each_time_and_is_cut_three_validations_after_the_last_cut() -> (
    None
):
    """danieljf24/hybrid_space: trainer.py in plain loops (docs/specs/dual-encoding.md, section
    11.1).
    """
    options = ScheduleOptions(name="plateau", on_each=0.99, factor=0.5, wait=3, wait_since="cut")
    schedule = Schedule(options, lr=1.0, horizon_steps=1, stop_after=11)
    scores = [5, 4, 6, 5, 7, 7, 6, 8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    rates, expected, stopped, rate, best, counter, worse = [], [], [], 1.0, 0, 0, 0

    for score in scores:
        stopped.append(schedule.judge(score).stop)
        rates.append(schedule.lr(0))
        counter, rate = counter + 1, rate * 0.99
        worse = 0 if score > best else worse + 1
        if score <= best and worse <= 10 and counter > 2:
            rate, counter = rate * 0.5, 0
        best = max(best, score)
        expected.append(rate)

    assert rates == pytest.approx(expected)
    assert stopped == [False] * 18 + [True]
