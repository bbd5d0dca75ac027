"""Windows lie where they should, and show the frames that a model would see of them."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.feeding.windows import Cutting, Seen, of_file, of_rows, spans_of
from pipeline.recipes.options import FrameOptions
from pipeline.video.frame_rule import Limits
from pipeline.video.shots import cuts
from tests.videos import Film, index_of, write


@pytest.mark.parametrize(
    ("seconds", "starts"), [(8, []), (10, []), (12, [0, 5]), (15, [0, 5]), (16, [0, 5, 10])]
)
def test_windows_cover_a_video(seconds: float, starts: list[float]) -> None:
    whole, *windows = spans_of(seconds, Cutting())

    assert whole == (0, seconds)
    assert [start for start, _ in windows] == starts
    assert not windows or windows[-1][1] == seconds


def test_a_window_shows_frames_of_its_own_seconds(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mp4", Film(frames=100, fps=5))

    windows = of_file(
        film, Seen(4, 96, FrameOptions(fit="center_crop")), Cutting(), Limits()
    ).windows

    shown = [[index_of(windows.frames[n]) % 2 for n in row] for row in windows.index]
    assert windows.spans.tolist() == [[0, 20], [0, 10], [5, 15], [10, 20]]
    assert len(shown) == 4 and (windows.real == 4).all()
    assert len(windows.frames) < windows.index.size


def test_rows_without_a_rate_are_a_whole_video() -> None:
    spans, parts = of_rows(40, None, Cutting())
    timed, cut = of_rows(40, 2.0, Cutting())

    assert parts == [slice(0, 40)] and np.isnan(spans[0, 1])
    assert timed.tolist() == [[0, 20], [0, 10], [5, 15], [10, 20]] and cut[1] == slice(0, 20)


def test_cuts_are_found_and_slow_changes_are_not() -> None:
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (3, 16, 16, 3))
    films = [np.repeat(scene[None], 20, 0) for scene in scenes]
    fade = np.linspace(scenes[0], scenes[1], 60)

    assert cuts(np.concatenate(films).astype(np.uint8)) == [4.0, 8.0]
    assert cuts(fade.astype(np.uint8)) == []
