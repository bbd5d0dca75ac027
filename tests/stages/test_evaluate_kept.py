"""`evaluate` of a model that reads frames: what did not change is not encoded again, and a kill
costs nothing.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cli
from tests.conftest import ROOT
from tests.search.systems import checkpoint
from tests.videos import Film, write

COUNT = 12


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder of videos with captions, all of them of test."""
    for number in range(COUNT):
        add(tmp_path / "films", number, f"a dog runs {number} times")
    return tmp_path / "films"


def add(folder: Path, number: int, caption: str) -> None:
    write(folder / f"v{number}.mp4", Film(frames=4 + number % 5, fps=3, width=64, height=48))
    table = folder / "captions.csv"
    lines = table.read_text().splitlines() if table.exists() else ["video,caption,split"]
    lines[number + 1 :] = [f"v{number},{caption},test", *lines[number + 2 :]]
    table.write_text("\n".join(lines) + "\n")


def arguments(model: Path, films: Path, out: Path) -> list[str]:
    given = ["--in", model, "--videos", films, "--annotations", films / "captions.csv"]
    return ["evaluate", *map(str, given), "--out", str(out), "--batch-size", "2"]


def files(out: Path) -> dict[str, bytes]:
    paths = [path for path in out.rglob("*") if path.is_file() and "_state" not in path.parts]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def test_an_added_video_and_a_changed_caption_are_encoded_alone(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = checkpoint(tmp_path / "model", "mean")[2]
    assert cli.main(arguments(model, films, tmp_path / "out")) == 0
    add(films, COUNT, "a cat sleeps")
    add(films, 3, "a horse jumps")
    capsys.readouterr()

    assert cli.main(arguments(model, films, tmp_path / "out")) == 0

    said = re.search(r"(\d+) of 13 videos and (\d+) captions encoded", capsys.readouterr().err)
    assert 1 <= int(said[1]) <= 4 and 1 <= int(said[2]) <= 13
    assert cli.main(arguments(model, films, tmp_path / "fresh")) == 0
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


@pytest.mark.slow
def test_a_killed_evaluation_ends_with_the_same_bytes(films: Path, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "model", "mean")[2]
    begun = time.monotonic()
    assert cli.main(arguments(model, films, tmp_path / "fresh")) == 0
    seconds = time.monotonic() - begun

    chance = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "cli.py"), *arguments(model, films, tmp_path / "out")],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(1 + chance.random() * 2 * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert cli.main(arguments(model, films, tmp_path / "out")) == 0

    assert files(tmp_path / "out") == files(tmp_path / "fresh")
