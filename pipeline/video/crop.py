"""Bring frames to the square a model sees: crop the centre, or resize the short side first."""

from typing import Literal

import numpy as np

Fit = Literal["resize_crop", "center_crop"]


def fit_square(images: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """Return uint8 (T, H, W, 3) as (T, size, size, 3): cropped, with `resize_crop` resized before.

    The result is a view where possible: do not write.
    """
    if fit == "resize_crop":
        images = resize_short(images, size)
    return center_crop(images, size)


def center_crop(images: np.ndarray, size: int) -> np.ndarray:
    """Return the central `size` x `size` of uint8 (T, H, W, C); smaller frames get black borders. A
    view if possible.

    The offset is round((H - size) / 2), halves to even, as in the published transforms
    (docs/specs/preprocessing.md, section 1.9).
    """
    missing = [max(size - side, 0) for side in images.shape[1:3]]
    if any(missing):
        around = [(m // 2, m - m // 2) for m in missing]
        images = np.pad(images, ((0, 0), *around, (0, 0)))
    top = round((images.shape[1] - size) / 2)
    left = round((images.shape[2] - size) / 2)
    return images[:, top : top + size, left : left + size]


def resize_short(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 (T, H, W, 3) with the shorter side `size`, bicubic (Pillow), the longer one rounded
    down.

    Frames that already have that size are returned as they are. Source: the transforms of CLIP4Clip
    and DRL.
    """
    from PIL import Image

    height, width = images.shape[1:3]
    if min(height, width) == size:
        return images
    new_height = int(size * height / min(height, width))
    new_width = int(size * width / min(height, width))
    resized = np.empty((len(images), new_height, new_width, 3), np.uint8)
    for slot, image in zip(resized, images, strict=True):  # Pillow takes one picture at a time
        slot[...] = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BICUBIC)
    return resized
