"""From decoded frames to what an ImageNet network sees: resize and crops, on uint8. Normalising is
the network's part.

Two published ways. `vcf` (xuchaoxi/video-cnn-feat): squash to 256 x 256, crops of 224.
`torchvision` (pytorch/vision:
torchvision/transforms/_presets.py, on Pillow images): short side 256 or 232, centre crop 224.
Either with the centre crop alone or with ten crops. vcf's own round through a JPEG file per frame
is not repeated.
Source: docs/specs/preprocessing.md, section 1.7, docs/specs/dual-encoding.md, sections 12.2 and
12.6.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.errors import ItemError


@dataclass(frozen=True)
class Preprocess:
    """fit: squash both sides to `side`, or make the short one `side`. crop: its side. ten: ten
    crops instead of one.
    """

    fit: Literal["squash", "short"]
    side: int
    crop: int
    ten: bool = False

    @property
    def images_per_frame(self) -> int:
        return 10 if self.ten else 1


def shrink(frame: np.ndarray, way: Preprocess, max_long_side: int = 4096) -> np.ndarray:
    """Return the part of a frame that the crops need, uint8 (H, W, 3): resized, and for one crop
    already cut out.

    Raises ItemError("extreme_aspect") if the resized frame would have a side longer than
    `max_long_side`.
    """
    resized = (
        _squashed(frame, way.side)
        if way.fit == "squash"
        else _shortened(frame, way.side, max_long_side)
    )
    return resized if way.ten else _centre(resized, way.crop)


def crops(shrunk: np.ndarray, way: Preprocess) -> Iterator[np.ndarray]:
    """Yield the crops of a frame made by `shrink`, uint8 (crop, crop, 3) views.

    Ten: centre, top left, bottom left, top right, bottom right, then the same of the mirrored
    frame.
    """
    if not way.ten:
        yield shrunk
        return
    for picture in (shrunk, shrunk[:, ::-1]):
        height, width = picture.shape[:2]
        yield _centre(picture, way.crop)
        for left in (0, width - way.crop):
            for top in (0, height - way.crop):
                yield picture[top : top + way.crop, left : left + way.crop]


def _centre(picture: np.ndarray, size: int) -> np.ndarray:
    top = round((picture.shape[0] - size) / 2)
    left = round((picture.shape[1] - size) / 2)
    return picture[top : top + size, left : left + size]


def _shortened(frame: np.ndarray, side: int, max_long_side: int) -> np.ndarray:
    from PIL import Image

    height, width = frame.shape[:2]
    if min(height, width) == side:
        return frame
    new_height = int(side * height / min(height, width))
    new_width = int(side * width / min(height, width))
    if max(new_height, new_width) > max_long_side:
        raise ItemError("extreme_aspect", f"{width}x{height} would become {new_width}x{new_height}")
    return np.asarray(
        Image.fromarray(frame).resize((new_width, new_height), Image.Resampling.BILINEAR)
    )


def _squashed(frame: np.ndarray, side: int) -> np.ndarray:
    """Bilinear without antialiasing, at OpenCV's sample positions (its fixed-point result may
    differ by one level).
    """
    top, bottom, down = _neighbours(frame.shape[0], side)
    left, right, across = _neighbours(frame.shape[1], side)
    down, across = down[:, None, None], across[None, :, None]
    rows = frame[top] * (1 - down) + frame[bottom] * down  # float32 (side, W, 3)
    return (rows[:, left] * (1 - across) + rows[:, right] * across + np.float32(0.5)).astype(
        np.uint8
    )


def _neighbours(length: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `side` samples: the pixels before and after it, and the weight of the one after,
    float32.
    """
    position = ((np.arange(side) + 0.5) * (length / side) - 0.5).clip(0, length - 1)
    before = position.astype(np.int64)
    return before, np.minimum(before + 1, length - 1), (position - before).astype(np.float32)
