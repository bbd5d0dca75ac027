from itertools import product

import numpy as np
import pytest

from pipeline.datasets.parts import draw
from pipeline.datasets.parts.scenes import BACKGROUNDS, COLOURS, REVERSED, SHAPES, DrawnShape, Scene


def film(
    *shapes: DrawnShape,
    background: str = "black",
    size: tuple[int, int] = (96, 64),
    n_frames: int = 5,
) -> np.ndarray:
    return np.stack(list(draw.frames(Scene(shapes, background), n_frames, *size)))


def centre_of_colour(picture: np.ndarray) -> tuple[float, float]:
    weight = (picture.max(axis=-1) > 120).astype(float)
    return (weight.sum(0) @ np.arange(picture.shape[1])) / weight.sum(), (
        weight.sum(1) @ np.arange(len(picture))
    ) / weight.sum()


@pytest.mark.parametrize("motion", ["right", "up", "grows", "vanishes"])
@pytest.mark.parametrize("n_frames", [1, 2, 7, 30])
def test_a_reversed_scene_is_the_reversed_film_in_every_bit(motion: str, n_frames: int) -> None:
    scene = Scene(
        (
            DrawnShape("red", "star", "large", motion, 7),
            DrawnShape("blue", "ring", "small", "left", -24),
        ),
        "striped",
    )

    forwards = np.stack(list(draw.frames(scene, n_frames, 90, 120)))
    backwards = np.stack(list(draw.frames(scene.reversed, n_frames, 90, 120)))

    np.testing.assert_array_equal(backwards, forwards[::-1])


@pytest.mark.parametrize(
    ("motion", "axis", "sign"), [("right", 0, 1), ("left", 0, -1), ("down", 1, 1), ("up", 1, -1)]
)
def test_a_travelling_shape_goes_where_its_motion_says(motion: str, axis: int, sign: int) -> None:
    pictures = film(DrawnShape("yellow", "circle", "small", motion))

    path = np.array([centre_of_colour(picture)[axis] for picture in pictures])

    assert (np.diff(path) * sign > 5).all()


@pytest.mark.parametrize("motion", ["grows", "appears"])
def test_a_shape_that_grows_or_appears_covers_more_each_frame_and_its_reversal_less(
    motion: str,
) -> None:
    light = film(DrawnShape("white", "square", "large", motion)).astype(int).sum(axis=(1, 2, 3))
    reversed_light = (
        film(DrawnShape("white", "square", "large", REVERSED[motion]))
        .astype(int)
        .sum(axis=(1, 2, 3))
    )

    assert (np.diff(light) > 0).all()
    assert (np.diff(reversed_light) < 0).all()


def test_shapes_colours_and_backgrounds_all_look_different() -> None:
    pictures = [
        film(DrawnShape(colour, kind, "large", "right"), background=background, n_frames=3)[
            1
        ].astype(int)
        for colour, kind, background in product(COLOURS, SHAPES, BACKGROUNDS)
    ]

    differences = [np.abs(a - b).mean() for n, a in enumerate(pictures) for b in pictures[:n]]

    assert min(differences) > 0.3


@pytest.mark.parametrize("size", [(64, 64), (320, 180), (90, 160)])
def test_everything_happens_inside_the_central_square(size: tuple[int, int]) -> None:
    shapes = [
        DrawnShape("white", kind, "large", motion, 15)
        for kind in SHAPES
        for motion in ("right", "down", "grows")
    ]
    side, (width, height) = min(size), size
    pictures = [film(shape, size=size, n_frames=4) for shape in shapes]

    outside = np.ones((height, width), dtype=bool)
    outside[
        (height - side) // 2 : (height + side) // 2, (width - side) // 2 : (width + side) // 2
    ] = False

    # a tip may leave the square by a few pixels, the shape may not
    assert all((picture[:, outside] > 120).sum() <= 0.002 * picture.size for picture in pictures)


def test_edges_are_antialiased() -> None:
    picture = film(DrawnShape("white", "circle", "large", "right"), n_frames=1)[0, :, :, 0]

    assert len(np.unique(picture)) > 20
