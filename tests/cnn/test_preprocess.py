"""Resizing and cropping as the published extractors do."""

import numpy as np
import pytest
from PIL import Image

from pipeline.cnn.preprocess import Preprocess, crops, shrink
from pipeline.errors import ItemError

VCF = Preprocess("squash", 256, 224)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def bilinear(frame: np.ndarray, side: int) -> np.ndarray:
    """Plain loops: the value between pixel centres, edges repeated, no antialiasing."""
    height, width = frame.shape[:2]
    out = np.empty((side, side, 3))
    for i in range(side):
        for j in range(side):
            y = min(max((i + 0.5) * height / side - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / side - 0.5, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            top = frame[y0, x0] * (1 - x + x0) + frame[y0, x1] * (x - x0)
            bottom = frame[y1, x0] * (1 - x + x0) + frame[y1, x1] * (x - x0)
            out[i, j] = top * (1 - y + y0) + bottom * (y - y0)
    return out


@pytest.mark.parametrize("size", [(20, 50), (7, 5), (1, 9), (12, 12)])
def test_squashing_is_bilinear_between_pixel_centres(size):
    frame = picture(*size)

    squashed = shrink(frame, Preprocess("squash", 12, 12, ten=True))

    assert np.abs(squashed - bilinear(frame, 12)).max() <= 0.501  # rounded to whole grey levels


def test_squashing_ignores_the_aspect_and_keeps_the_central_224():
    assert shrink(picture(90, 160), VCF).shape == (224, 224, 3)
    assert (shrink(picture(256, 256), VCF) == picture(256, 256)[16:240, 16:240]).all()


@pytest.mark.parametrize(("size", "resized"), [((90, 160), (256, 455)), ((300, 200), (384, 256))])
def test_torchvision_resizes_the_short_side_with_pillow_and_crops(size, resized):
    frame = picture(*size)
    whole = np.asarray(Image.fromarray(frame).resize(resized[::-1], Image.Resampling.BILINEAR))
    top, left = round((resized[0] - 224) / 2), round((resized[1] - 224) / 2)

    shown = shrink(frame, Preprocess("short", 256, 224))

    assert (shown == whole[top : top + 224, left : left + 224]).all()


def test_ten_crops_are_centre_and_corners_then_the_same_mirrored():
    frame = shrink(picture(256, 256), Preprocess("squash", 256, 224, ten=True))

    ten = list(crops(frame, Preprocess("squash", 256, 224, ten=True)))

    places = [(16, 16), (0, 0), (32, 0), (0, 32), (32, 32)]  # top, left
    mirrored = frame[:, ::-1]
    expected = [p[t : t + 224, s : s + 224] for p in (frame, mirrored) for t, s in places]
    assert len(ten) == 10
    assert all((a == b).all() for a, b in zip(ten, expected, strict=True))


def test_a_sliver_is_set_aside_before_it_becomes_huge():
    with pytest.raises(ItemError, match="extreme_aspect"):
        shrink(picture(2, 90), Preprocess("short", 256, 224))
