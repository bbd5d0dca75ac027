"""Centre crop and short-side resize, against plain formulas."""

import pytest

from pipeline.video.crop import center_crop, fit_square, resize_short
from tests.stores.frame_store.frame_clips import images


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(224, 298, 0, 37), (224, 299, 0, 38), (227, 225, 2, 0)]
)
def test_offset_is_half_the_rest_rounded_half_to_even(height, width, top, left):
    frames = images(1, 2, height, width)

    assert (center_crop(frames, 224) == frames[:, top : top + 224, left : left + 224]).all()


def test_smaller_frames_get_black_borders():
    frames = images(1, 1, 9, 20)

    got = center_crop(frames, 12)

    assert (got[:, 1:10] == frames[:, :, 4:16]).all()
    assert not got[:, [0, 10, 11]].any()


@pytest.mark.parametrize(
    ("height", "width", "shape"), [(48, 64, (24, 32)), (64, 48, (32, 24)), (50, 99, (24, 47))]
)
def test_short_side_is_exact_and_the_long_side_is_rounded_down(height, width, shape):
    assert resize_short(images(1, 2, height, width), 24).shape == (2, *shape, 3)


def test_frames_of_the_right_size_are_not_touched():
    frames = images(1, 2, 24, 40)

    assert resize_short(frames, 24) is frames


def test_fitting_resizes_before_it_crops_only_if_told_to():
    frames = images(1, 2, 64, 128)

    cropped = fit_square(frames, 32, "center_crop")
    resized = fit_square(frames, 32, "resize_crop")

    assert (cropped == center_crop(frames, 32)).all()
    assert (resized == center_crop(resize_short(frames, 32), 32)).all()
    assert cropped.shape == resized.shape == (2, 32, 32, 3)
