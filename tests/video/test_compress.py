"""One video to a small file: the part that `compress` and `fetch` share."""

from pathlib import Path

import pytest

from pipeline.errors import ItemError
from pipeline.video.compress import Options, compress, time_limit
from tests.videos import Film, cut, shown, write


def test_the_result_has_the_given_name_and_its_facts(tmp_path: Path):
    path = write(tmp_path / "film.mp4", Film(frames=100, width=320, height=240))

    outcome = compress(path, tmp_path / "out", "x/small.mp4", Options())

    assert list(outcome.outputs) == ["x/small.mp4"]
    assert shown(tmp_path / "out/x/small.mp4") == [0, 8, 16, 25, 33, 41, 50, 58, 66, 75, 83, 91]
    assert outcome.facts["frames"] == 12


def test_nothing_is_left_of_what_fails(tmp_path: Path):
    path = cut(write(tmp_path / "film.mp4", Film(frames=60, noise=30)), 0.6)

    with pytest.raises(ItemError, match="truncated"):
        compress(path, tmp_path / "out", "small.mp4", Options(strict=True))

    assert list((tmp_path / "out").iterdir()) == []


def test_the_time_limit_grows_with_the_size_up_to_the_longest_film():
    assert time_limit(0, Options()) == 600
    assert time_limit(12_500 * 60, Options()) == 720
    assert time_limit(1 << 50, Options(max_duration=100)) == 800
