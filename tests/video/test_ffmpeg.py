"""The ffmpeg program: its command, and how it is watched. Real processes that get real signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import psutil
import pytest

from pipeline.errors import ItemError
from pipeline.video import ffmpeg
from pipeline.video.encode import Encoding, verify
from pipeline.video.frame_rule import FrameChoice
from tests.videos import Film, write

PUBLISHED = FrameChoice("published")


def job(source: Path, choice: FrameChoice = PUBLISHED) -> ffmpeg.Job:
    return ffmpeg.Job(source, 0, 298, 224, choice, Encoding(preset="medium"))


def test_the_command_is_the_published_one_for_one_stream():
    command = ffmpeg.arguments("ffmpeg", "file:/dev/fd/5", job(Path("x.mp4")), Path("out.mp4"))

    pairs = list(zip(command, command[1:], strict=False))
    assert command[0] == "ffmpeg"
    assert ("-i", "file:/dev/fd/5") in pairs
    assert ("-filter:v", "scale=298:224") in pairs
    assert ("-map", "0:0") in pairs
    assert ("-r", "3") in pairs
    assert ("-protocol_whitelist", "file") in pairs


def test_rates_are_written_as_fractions():
    command = ffmpeg.arguments(
        "ffmpeg", "file:x", job(Path("x"), FrameChoice("grid", Fraction(5, 2))), Path("out.mp4")
    )

    assert "fps=fps=5/2:round=up:start_time=0" in " ".join(command)


@pytest.mark.parametrize(
    "name", ["film.mp4", "-y.mp4", "concat:a|b.mp4", "100%d.mp4", "$(touch pwned).mp4"]
)
def test_a_name_is_only_a_name(name: str, tmp_path: Path):
    source = write(tmp_path / "film.mp4").rename(tmp_path / name)

    said = ffmpeg.run(job(source), tmp_path / "out.mp4", 60)

    assert said == ""
    verify(tmp_path / "out.mp4", 298, 224, 8)
    assert {path.name for path in tmp_path.iterdir()} == {name, "out.mp4"}


def test_damage_is_said_although_the_program_ends_well(tmp_path: Path):
    source = write(tmp_path / "film.mp4", Film(noise=30, frames=80))
    data = bytearray(source.read_bytes())
    data[len(data) // 2 : len(data) * 6 // 10] = bytes(len(data) * 6 // 10 - len(data) // 2)
    source.write_bytes(data)

    assert ffmpeg.run(job(source), tmp_path / "out.mp4", 60)


def test_a_failure_is_an_item_error(tmp_path: Path):
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)

    with pytest.raises(ItemError, match="ffmpeg ended with code"):
        ffmpeg.run(job(tmp_path / "text.mp4"), tmp_path / "out.mp4", 60)


def test_the_time_limit_ends_the_program(tmp_path: Path):
    source = write(tmp_path / "gap.mp4", Film(frames=2, times=[0, 20_000_000]))
    start = time.monotonic()

    with pytest.raises(ItemError, match="timeout"):
        ffmpeg.run(job(source), tmp_path / "out.mp4", 0.3)

    assert time.monotonic() - start < 5
    assert not _programs()


def test_the_program_dies_with_its_parent(tmp_path: Path):
    source = write(tmp_path / "gap.mp4", Film(frames=2, times=[0, 20_000_000]))
    code = (
        "from pathlib import Path; from pipeline.video import ffmpeg; from"
        f" tests.video.test_ffmpeg import job;ffmpeg.run(job(Path({str(source)!r})),"
        f" Path({str(tmp_path / 'out.mp4')!r}), 60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    (program,) = _until(lambda: _programs(parent.pid))

    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()

    _until(lambda: not program.is_running() or program.status() == psutil.STATUS_ZOMBIE)


def _programs(parent: int | None = None) -> list[psutil.Process]:
    try:
        return [
            p
            for p in psutil.Process(parent).children(recursive=True)
            if p.name().startswith("ffmpeg")
        ]
    except psutil.NoSuchProcess:
        return []


def _until(wanted: Callable[[], object]) -> object:
    """What `wanted` returns as soon as it is true."""
    end = time.monotonic() + 20
    while not (found := wanted()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found
