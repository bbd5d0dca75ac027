"""Sizes of results, and rates as exact fractions."""

from fractions import Fraction

import pytest

from pipeline.errors import ItemError
from pipeline.video.frame_rule import FrameChoice, Limits, SizeRule


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (320, 240, (298, 224)),
        (240, 320, (224, 298)),
        (1280, 720, (398, 224)),
        (227, 113, (448, 224)),
        (96, 64, (336, 224)),
        (200, 200, (224, 224)),
        (352, 288, (272, 224)),
    ],
)
def test_the_short_side_becomes_224_and_the_long_one_even(
    width: int, height: int, expected: tuple[int, int]
):
    assert SizeRule().target(width, height, 4096) == expected


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(240, 320, (224, 168)), (40, 1200, (224, 6)), (320, 240, (298, 224))],
)
def test_the_published_rule_squashes_portrait(width: int, height: int, expected: tuple[int, int]):
    assert SizeRule("clip4clip").target(width, height, 4096) == expected


def test_square_ignores_the_aspect():
    assert SizeRule("square", 64).target(1600, 32, 4096) == (64, 64)


@pytest.mark.parametrize(
    ("rule", "size"), [("short", (1600, 32)), ("short", (32, 1600)), ("clip4clip", (4, 1200))]
)
def test_extreme_aspects_are_refused(rule: str, size: tuple[int, int]):
    with pytest.raises(ItemError, match="extreme_aspect"):
        SizeRule(rule).target(*size, Limits().max_long_side)


def test_rates_are_exact():
    assert FrameChoice.at(3).fps == 3
    assert FrameChoice.at(2.5).fps == Fraction(5, 2)
    assert FrameChoice.every(0.3).fps == Fraction(10, 3)
