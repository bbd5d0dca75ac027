"""Which frame every slot shows: the published lists, the grid as it is defined, times that had to
be made up.
"""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video.frame_rule import FrameChoice
from pipeline.video.timeline import FrameClock, Timing, clip_rate, select

RATES = [Fraction(r) for r in (10, 12, 15, 24, 25, 30, 50, 60, 120)] + [Fraction(30000, 1001)]


def slots(rule: str, rate: Fraction, frames: int, fps: float = 3) -> list[int]:
    return shown(FrameChoice.at(fps, rule), range(frames), Timing(1 / rate, 1 / rate))


def shown(choice: FrameChoice, times, timing: Timing) -> list[int]:
    return [index for index, repeats in select(choice, times, timing) for _ in range(repeats)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("published", [0, 1, 8, 18, 28, 38]),
        ("published-vfr", [0, 3, 13, 23, 33]),
        ("grid", [0, 10, 20, 30]),
    ],
)
def test_at_30_fps_the_rules_take_the_frames_of_the_spec(rule: str, expected: list[int]):
    assert slots(rule, Fraction(30), 40) == expected


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize(
    ("rule", "tau"), [("published", Fraction(11, 10)), ("published-vfr", Fraction(6, 10))]
)
def test_published_lists_follow_the_closed_form(rate: Fraction, rule: str, tau: Fraction):
    frames = int(rate * 20)

    taken = slots(rule, rate, frames)

    expected = [0]
    while (
        index := max(expected[-1] + 1, math.ceil((len(expected) - tau) * rate / 3 - 1))
    ) < frames:
        expected.append(index)
    assert taken == expected


def test_published_results_are_a_frame_or_two_longer_than_the_source():
    assert len(slots("published", Fraction(25), 50)) == 8
    assert len(slots("published", Fraction(30), 450)) == 47


def test_published_repeats_across_a_gap():
    timing = Timing(Fraction(1, 30), Fraction(1, 30))
    times = [*range(60), *range(360, 420)]  # two seconds, ten of nothing, two seconds

    taken = shown(FrameChoice.at(3, "published"), times, timing)

    assert len(taken) in (43, 44)  # 14 s
    assert taken.count(59) >= 27


def test_below_the_wanted_rate_published_is_the_grid():
    assert (
        slots("published", Fraction(1, 2), 5)
        == slots("grid", Fraction(1, 2), 5)
        == [i for i in range(5) for _ in range(6)]
    )


@given(
    st.lists(st.integers(1, 400), min_size=0, max_size=40),
    st.sampled_from([1, 2, 3, 7, 25]),
    st.integers(1, 60),
)
def test_the_grid_shows_the_last_frame_at_or_before_each_slot(
    steps: list[int], fps: int, rate: int
):
    times = [0]
    for step in steps:
        times.append(times[-1] + step)
    timing = Timing(Fraction(1, 100), Fraction(1, rate))

    taken = shown(FrameChoice.at(fps), times, timing)

    seconds = times[-1] * timing.tick + timing.step
    assert len(taken) == max(1, math.ceil(fps * seconds - Fraction(1, 10**6)))
    slack = Fraction(1, 10**6)
    expected = [
        max(i for i, t in enumerate(times) if t * timing.tick <= Fraction(k, fps) + slack)
        for k in range(len(taken))
    ]
    assert taken == expected


def test_half_seconds_and_every_frame():
    timing = Timing(Fraction(1, 25), Fraction(1, 25))

    assert shown(FrameChoice("half-second"), range(60), timing) == [0, 12, 25, 37, 50]
    assert shown(FrameChoice("all"), range(4), timing) == [0, 1, 2, 3]
    assert shown(FrameChoice("half-second"), range(4), Timing(Fraction(1), Fraction(1))) == [
        0,
        1,
        2,
        3,
    ]
    assert clip_rate(FrameChoice("half-second"), timing) == 2
    assert clip_rate(FrameChoice("all"), timing) == 25


def test_select_looks_only_one_frame_back():
    taken = []

    def times():
        for index in range(0, 300, 7):
            yield index
            taken.append(index // 7)

    for index, _ in select(FrameChoice.at(3), times(), Timing(Fraction(1, 100), Fraction(7, 100))):
        assert index >= len(taken) - 1


def presented(times: list[int | None], timing: Timing) -> tuple[list, bool]:
    clock = FrameClock(timing)
    return [clock(time) for time in times], clock.moved


def test_missing_times_follow_the_ones_before_and_precede_the_first():
    timing = Timing(Fraction(1, 1000), Fraction(1, 25))

    assert presented([None, None, 100, None, 180], timing) == ([0, 40, 80, 120, 160], False)
    assert presented([None] * 3, timing) == ([0, 40, 80], False)
    assert presented([20, 60, None], timing) == ([20, 60, 100], False)


def test_times_that_do_not_increase_are_moved_and_reported():
    timing = Timing(Fraction(1, 1000), Fraction(1, 25))

    assert presented([0, 40, 40, 20, 160], timing) == ([0, 40, 80, 120, 160], True)
