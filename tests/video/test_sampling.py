"""Frame choice: recorded cases, the closed forms of the spec, and what holds for every clip."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.video import sampling
from pipeline.video.sampling import choose_frames, published_window

ORDERED = ["centers", "segments", "segments-published", "linspace", "head", "tail"]
sizes = st.integers(1, 400)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (45, [1, 5, 9, 13, 16, 20, 24, 28, 31, 35, 39, 43]),
        (13, [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]),
        (5, [0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4]),
    ],
)
def test_centers_are_the_published_ones(n: int, expected: list[int]):
    indices, valid = choose_frames(n, 12, "centers")

    assert indices.tolist() == expected
    assert valid == min(n, 12)


def test_published_segments_draw_as_numpy_s_old_generator():
    indices, _ = choose_frames(45, 12, "segments-published", np.random.RandomState(0))

    assert indices.tolist() == [0, 4, 6, 10, 13, 17, 18, 23, 24, 27, 30, 35]


def test_linspace_truncates():
    assert choose_frames(17, 12, "linspace")[0].tolist() == [
        0,
        1,
        2,
        4,
        5,
        7,
        8,
        10,
        11,
        13,
        14,
        16,
    ]


def test_recorded_choices_of_dgl(golden: Path):
    folder = golden / "dgl" / "frame_sampling"
    pairs, recorded = np.load(folder / "inputs.npz")["pairs"], np.load(folder / "outputs.npz")

    for case, (m, n) in enumerate(pairs.tolist()):
        rng = np.random.RandomState(41 + case)
        assert choose_frames(n, m, "centers")[0].tolist() == recorded[f"uniform_{case}"].tolist()
        assert (
            choose_frames(n, m, "twice")[0].tolist() == recorded[f"uniform_twice_{case}"].tolist()
        )
        drawn = choose_frames(n, m, "segments-published", rng)[0]
        assert drawn.tolist() == recorded[f"segments_random_{case}"].tolist()


def test_recorded_choices_of_centerclip(shared: Path):
    case = json.loads((shared / "golden/centerclip/metrics-and-sampling/case.json").read_bytes())

    for row in case["frame_sampling"]:
        n, m = row["num_frames"], row["clip_length"]
        drawn = choose_frames(n, m, "segments-published", np.random.RandomState(5))[0]
        assert drawn.tolist() == row["segments_random_numpy_seed_5"]
        assert choose_frames(n, m, "centers")[0].tolist() == row["uniform"]


@given(sizes, sizes, st.sampled_from(ORDERED), st.integers(0, 9), st.integers(1, 5))
def test_every_choice_is_ordered_in_range_and_of_the_length_asked(
    n: int, m: int, mode: str, seed: int, length: int
):
    indices, valid = choose_frames(n, m, mode, np.random.default_rng(seed), length)

    assert indices.dtype == np.int64
    assert len(indices) == m
    assert (np.diff(indices) >= 0).all()
    assert indices[0] >= 0
    assert indices[-1] <= max(0, n - length)
    assert valid == min(n, m)


@given(sizes, sizes)
def test_short_clips_repeat_their_last_frame(n: int, m: int):
    rng = np.random.default_rng(0)

    for mode in ORDERED:
        indices, valid = choose_frames(n, n + m, mode, rng)
        assert indices.tolist() == [*range(n), *[n - 1] * m]
        assert valid == n


@given(sizes, st.integers(1, 60), st.integers(0, 99))
def test_segments_cover_the_whole_clip(n: int, m: int, seed: int):
    indices, _ = choose_frames(n, m, "segments", np.random.default_rng(seed))

    bounds = [k * n // m for k in range(m + 1)]
    assert n < m or all(
        lo <= i < hi for i, lo, hi in zip(indices, bounds, bounds[1:], strict=False)
    )


def test_published_segments_never_see_the_tail():
    seen = [
        choose_frames(23, 12, "segments-published", np.random.default_rng(s))[0].max()
        for s in range(50)
    ]

    assert max(seen) == 11


def test_draws_without_segments_are_distinct_positions():
    indices, _ = choose_frames(14, 12, "segments-published", np.random.default_rng(3), length=4)

    assert (np.diff(indices) >= 0).all()
    assert indices.max() <= 10


def test_all_returns_every_frame():
    indices, valid = choose_frames(7, 3, "all")

    assert indices.tolist() == list(range(7))
    assert valid == 7


@pytest.mark.parametrize("mode", [*ORDERED, "twice", "all"])
def test_a_clip_without_frames_is_an_error(mode: str):
    with pytest.raises(ValueError, match="at least one frame"):
        choose_frames(0, 12, mode, np.random.default_rng(0))


def test_random_modes_ask_for_a_generator():
    with pytest.raises(ValueError, match="generator"):
        choose_frames(30, 12, "segments")


def test_published_int_rate_drops_the_fraction_of_the_rate():
    assert sampling.published_int_rate(100, 29.97).tolist() == [0, 29, 58, 87]
    assert sampling.published_int_rate(60, 25, fps=2).tolist() == [0, 12, 25, 37, 50]
    assert sampling.published_int_rate(200, 25, start=2, end=4).tolist() == [50, 75, 100]


def test_published_int_rate_refuses_what_divides_by_zero():
    with pytest.raises(ValueError, match=r"rate=0\.5"):
        sampling.published_int_rate(5, 0.5)


def test_strides_round_the_rate():
    assert sampling.strided(100, 29.97).tolist() == [0, 30, 60, 90]
    assert sampling.strided(5, 0.5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [(None, None, (0, 309)), (2.7, 9.2, (60, 270)), (9.0, 2.0, (60, 270)), (4.0, 4.9, (120, 150)),
     (8.0, 60.0, (240, 309)), (-3.0, 1.0, (0, 30))],
)  # fmt: skip
def test_a_published_window_is_cut_to_whole_seconds_and_turned(start, end, frames) -> None:
    assert published_window(310, 30.0, start, end) == frames
