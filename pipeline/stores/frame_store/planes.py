"""RGB pictures as three planes with chroma at half resolution (4:2:0): half the bytes of RGB, no
compression.

Full-range BT.601 as in JPEG files (JFIF): luma weights 0.299, 0.587, 0.114. One byte plane after
the other: Y (H, W), then Cb and Cr (ceil(H/2), ceil(W/2)), each the mean of its 2x2 block; on the
way back each is repeated over its block.
"""

import numpy as np

_LUMA = (0.299, 0.587, 0.114)
_TO_BLUE, _TO_RED = 1.772, 1.402  # 2 (1 - weight of blue), 2 (1 - weight of red)


def from_rgb(image: np.ndarray) -> bytes:
    """Return the planes of a uint8 (H, W, 3) picture, H*W + 2*ceil(H/2)*ceil(W/2) bytes."""
    red = image[..., 0].astype(np.float32)
    green = image[..., 1].astype(np.float32)
    blue = image[..., 2].astype(np.float32)
    luma = np.float32(_LUMA[0]) * red + np.float32(_LUMA[1]) * green + np.float32(_LUMA[2]) * blue
    chroma = [
        _halve((colour - luma) / np.float32(scale))
        for colour, scale in ((blue, _TO_BLUE), (red, _TO_RED))
    ]
    return b"".join(_byte(plane).tobytes() for plane in (luma, *(c + 128 for c in chroma)))


def to_rgb(data: bytes | memoryview, out: np.ndarray) -> None:
    """Fill `out`, uint8 (H, W, 3), from its planes. ValueError if `data` has another size."""
    height, width = out.shape[:2]
    half = ((height + 1) // 2, (width + 1) // 2)
    flat = np.frombuffer(data, np.uint8)
    if flat.size != height * width + 2 * half[0] * half[1]:
        raise ValueError("the planes of a frame have another size than the header says")
    luma = flat[: height * width].reshape(height, width).astype(np.float32)
    chroma = flat[height * width :].reshape(2, *half).astype(np.float32) - 128
    doubled = chroma.repeat(2, axis=1).repeat(2, axis=2)  # (2, >= H, >= W)
    to_blue = doubled[0, :height, :width]
    to_red = doubled[1, :height, :width]
    red = luma + np.float32(_TO_RED) * to_red
    blue = luma + np.float32(_TO_BLUE) * to_blue
    green = (luma - np.float32(_LUMA[0]) * red - np.float32(_LUMA[2]) * blue) / np.float32(_LUMA[1])
    for channel, plane in enumerate((red, green, blue)):
        out[..., channel] = _byte(plane)


def _halve(plane: np.ndarray) -> np.ndarray:
    """Mean of each 2x2 block; the last row and column of odd sizes count twice."""
    odd_rows, odd_columns = plane.shape[0] % 2, plane.shape[1] % 2
    plane = np.pad(plane, ((0, odd_rows), (0, odd_columns)), mode="edge")
    return (
        plane[0::2, 0::2] + plane[0::2, 1::2] + plane[1::2, 0::2] + plane[1::2, 1::2]
    ) / np.float32(4)


def _byte(plane: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(plane), 0, 255).astype(np.uint8)
