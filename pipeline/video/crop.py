"""Bring frames to the square a model sees: centre crop as published, or resize the short side
first.
"""

import numpy as np


def center_crop(images: np.ndarray, size: int) -> np.ndarray:
    """The central `size` x `size` of uint8 (T, H, W, C); smaller frames get black borders. A view
    if possible.

    The offset is round((H - size) / 2), halves to even, as in the published transforms
    (docs/specs/preprocessing.md, section 1.9).
    """
    missing = [max(size - side, 0) for side in images.shape[1:3]]
    if any(missing):
        around = [(m // 2, m - m // 2) for m in missing]
        images = np.pad(images, ((0, 0), *around, (0, 0)))
    top, left = (round((side - size) / 2) for side in images.shape[1:3])
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
    new_height, new_width = (int(size * side / min(height, width)) for side in (height, width))
    resized = np.empty((len(images), new_height, new_width, 3), np.uint8)
    for slot, image in zip(resized, images, strict=True):  # Pillow takes one picture at a time
        slot[...] = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BICUBIC)
    return resized
