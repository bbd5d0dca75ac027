"""Grids of frames, their patches, and what covers patches that were not kept."""

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.explain.contact_sheet import PATCH, covered, patches, sheet

RNG = np.random.default_rng(0)


def images(count: int, side: int = 64) -> np.ndarray:
    return RNG.integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.parametrize("count", [1, 6, 7, 20])
def test_every_frame_is_in_the_grid(count: int):
    frames = images(count)

    page = np.array(sheet(frames, [str(n) for n in range(count)], "title"))

    last = frames[-1]
    x, y = 16 + (count - 1) % min(count, 6) * (64 + 8), 16 + 28 + (count - 1) // 6 * (64 + 20 + 8)
    assert (page[y : y + 64, x : x + 64] == last).all()


def test_odd_texts_do_no_harm():
    page = sheet(
        images(2),
        ["a", "b"],
        "t\udcff\n" * 60,
        ["", "x" * 900, "\t two \n lines \x00", "日本語 😀"],
    )

    assert page.width >= 480


def test_what_is_kept_stays_and_the_rest_is_covered():
    frames = images(4)  # two segments of two frames of 2 x 2 patches

    result = covered(frames, np.array([[0, 7], [1, 2]]))

    same = (
        (result == frames)
        .all(axis=-1)
        .reshape(4, 2, PATCH, 2, PATCH)
        .all(axis=(2, 4))
        .reshape(4, 4)
    )
    assert same.astype(int).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_frames_are_not_changed_in_place():
    frames = images(2)
    before = frames.copy()

    covered(frames, np.array([[0]]))

    assert (frames == before).all()


@pytest.mark.parametrize(
    "kept",
    [np.zeros(3, int), np.zeros((3, 1), int), np.array([[-1]]), np.array([[16]]), np.ones((2, 2))],
)
def test_ids_that_do_not_fit_are_refused(kept: np.ndarray):
    with pytest.raises(DataError) as caught:
        covered(images(4), kept)

    assert caught.value.where and caught.value.fix


def test_patches_go_down_the_columns_and_leave_the_edge_out():
    image = images(1, 100)[0]

    found = list(patches(image))

    assert len(found) == 9
    assert (found[1] == image[32:64, :32]).all()
    assert (found[3] == image[:32, 32:64]).all()
