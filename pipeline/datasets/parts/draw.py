"""Pictures of a scene: antialiased shapes, a pure function of the scene, the frame's number and the
size.

Everything happens within the central square, so that a centre crop keeps it. Lengths are in units
of the short side, with the origin at the centre, x to the right and y downwards.
"""

from collections.abc import Callable, Iterator
from math import cos, pi, sin

import numpy as np
from PIL import Image

from pipeline.datasets.parts.scenes import TWINS, DrawnShape, Scene

COLOURS = {
    "red": (225, 40, 40),
    "green": (40, 175, 60),
    "blue": (55, 95, 240),
    "yellow": (240, 215, 45),
    "pink": (240, 120, 205),
    "white": (242, 242, 242),
}
_DARK, _LIGHT = (34, 38, 46), (84, 88, 98)
_RADIUS = {"small": 0.12, "large": 0.22}
_PLAIN = {"black": (8, 8, 10), "grey": (112, 114, 118)}
_CELL = 1 / 8  # width of a stripe and of a field of the checkered background
_BACKWARDS = frozenset(second for _, second in TWINS)


def frames(scene: Scene, n_frames: int, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield the frames of a clip, uint8 RGB (height, width, 3) each.

    Frame k of `scene.reversed` equals frame n_frames - 1 - k of `scene`, in every bit.
    """
    background = _background(scene.background, width, height)
    for index in range(n_frames):
        picture = background.copy()
        for shape in scene.shapes:
            _paint(picture, shape, index, n_frames)
        yield np.asarray(picture)


def _paint(picture: Image.Image, shape: DrawnShape, index: int, n_frames: int) -> None:
    x, y, radius, opacity = _place(shape, index, n_frames)
    side = min(picture.size)
    centre_x, centre_y, radius = (
        picture.width / 2 + x * side,
        picture.height / 2 + y * side,
        radius * side,
    )
    reach = radius * 1.2 + 1
    left, right = max(0, int(centre_x - reach)), min(picture.width, int(centre_x + reach) + 1)
    top, bottom = max(0, int(centre_y - reach)), min(picture.height, int(centre_y + reach) + 1)
    across = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - centre_x))[None, :]
    down = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - centre_y))[:, None]
    outside = _DISTANCE[shape.kind](across, down, np.float32(radius))
    coverage = np.clip(np.float32(0.5) - outside, 0, 1) * np.float32(255 * opacity) + np.float32(
        0.5
    )
    picture.paste(
        COLOURS[shape.colour],
        (left, top, right, bottom),
        Image.fromarray(coverage.astype(np.uint8)),
    )


def _place(shape: DrawnShape, index: int, n_frames: int) -> tuple[float, float, float, float]:
    """x, y, radius and opacity of a shape in frame `index`."""
    # counting from the other end, not 1 - t, keeps the reversal exact
    step = n_frames - 1 - index if shape.motion in _BACKWARDS else index
    t = step / max(1, n_frames - 1)
    radius, lane = _RADIUS[shape.size], shape.lane / 100
    travel = (2 * t - 1) * (0.5 - 0.9 * radius)
    if shape.motion in ("right", "left"):
        return travel, lane, radius, 1.0
    if shape.motion in ("down", "up"):
        return lane, travel, radius, 1.0
    if shape.motion in ("grows", "shrinks"):
        return lane, lane, radius * (0.35 + t), 1.0
    return lane, lane, radius, t


def _background(name: str, width: int, height: int) -> Image.Image:
    if name in _PLAIN:
        return Image.new("RGB", (width, height), _PLAIN[name])
    cell = min(width, height) * _CELL
    column, row = (
        (np.arange(width) // cell).astype(int)[None, :],
        (np.arange(height) // cell).astype(int)[:, None],
    )
    light = column + (row if name == "checkered" else 0 * row)
    return Image.fromarray(np.array([_DARK, _LIGHT], dtype=np.uint8)[light % 2])


# Signed distance in pixels from the outline (negative inside), up to a small error at corners; x
# (1, w), y (h, 1).
def _circle(x: np.ndarray, y: np.ndarray, radius: np.float32) -> np.ndarray:
    return np.sqrt(x * x + y * y) - radius


def _ring(x: np.ndarray, y: np.ndarray, radius: np.float32) -> np.ndarray:
    return np.abs(_circle(x, y, 0.75 * radius)) - 0.25 * radius


def _square(x: np.ndarray, y: np.ndarray, radius: np.float32) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.85 * radius


def _triangle(x: np.ndarray, y: np.ndarray, radius: np.float32) -> np.ndarray:
    sides = np.float32(cos(pi / 6)) * np.abs(x) - np.float32(0.5) * y
    return np.maximum(sides, y) - 0.55 * radius


def _cross(x: np.ndarray, y: np.ndarray, radius: np.float32) -> np.ndarray:
    long, thin = radius, 0.33 * radius
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - long, y - thin), np.maximum(x - thin, y - long))


def _star(x: np.ndarray, y: np.ndarray, radius: np.float32) -> np.ndarray:
    outer, inner = 1.15 * radius, 0.5 * radius
    # fold the ten mirrored sectors onto one; its edge runs from the outer tip (0 degrees) to the
    # inner corner (36)
    sector = np.float32(2 * pi / 5)
    angle = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
    distance = np.sqrt(x * x + y * y)
    edge_x, edge_y = inner * np.float32(cos(pi / 5)) - outer, inner * np.float32(sin(pi / 5))
    length = np.sqrt(edge_x * edge_x + edge_y * edge_y)
    return (
        (distance * np.cos(angle) - outer) * edge_y - distance * np.sin(angle) * edge_x
    ) / length


_DISTANCE: dict[str, Callable[[np.ndarray, np.ndarray, np.float32], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}
