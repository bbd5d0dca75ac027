"""Moments of a film: the same frames whoever reads them."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.video.moment import Moment, moment_id, parse_id
from pipeline.video.reader import FrameChoice, decode_clip
from tests.videos import Film, write


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("film") / "film.mp4", Film(frames=50, fps=10))


@pytest.mark.parametrize(
    ("choice", "moment", "frames"),
    [
        (FrameChoice("all"), Moment(1.0, 2.0), range(10, 20)),
        (FrameChoice("all"), Moment(4.5), range(45, 50)),
        (FrameChoice.at(2), Moment(1.0, 3.0), range(10, 30, 5)),
        (FrameChoice.at(20), Moment(1.0, 1.3), [10, 10, 11, 11, 12, 12]),
        (FrameChoice("all"), Moment(1.01, 1.02), [10]),
        (FrameChoice.at(1), Moment(1.2, 1.5), [10]),
        (FrameChoice.at(1), Moment(0.0, 2.0), [0, 10]),
    ],
)
def test_a_moment_is_the_frames_that_are_shown_in_it(
    film: Path, choice: FrameChoice, moment: Moment, frames: list[int]
) -> None:
    clip = decode_clip(film, choice, moment=moment)

    assert clip.source_index.tolist() == list(frames)
    assert clip.times_ms[0] <= 100
    assert clip.status == "ok"


def test_a_moment_behind_the_end_has_no_frames(film: Path) -> None:
    assert len(decode_clip(film, FrameChoice("all"), moment=Moment(90.0, 95.0)).images) == 0


def test_the_whole_film_is_no_moment() -> None:
    assert Moment.of(None, None) is None
    assert Moment.of(0.0, None) is None
    assert Moment.of(0.0, 31.0) == Moment(0.0, 31.0)


@pytest.mark.parametrize("moment", [Moment(0.0, 1.5), Moment(3661.125, 3662.0), Moment(7.0)])
def test_ids_of_moments_are_read_back(moment: Moment) -> None:
    assert parse_id(moment_id("sub/film", moment)) == ("sub/film", moment)
    assert parse_id("100233434@N08_9622921646_c39ac10ea3") is None


def test_frames_of_a_moment_are_those_of_the_film(film: Path) -> None:
    whole = decode_clip(film, FrameChoice("grid", Fraction(5))).images

    part = decode_clip(film, FrameChoice("grid", Fraction(5)), moment=Moment(2.0, 3.0)).images

    assert np.array_equal(part, whole[10:15])
