"""--set of a run is kept with the pipeline's folder, and what a run says at its end."""

from pathlib import Path

import pytest

import cli
from tests.videos import Film, write

PIPELINE = """
datasets: {mine: {type: folder, root: films}}
pipelines:
  small:
    dataset: mine
    steps: {compress: {fps: 3}, frames: {}}
"""


def ran(capsys: pytest.CaptureFixture, *words: str) -> tuple[str, str]:
    assert cli.main(list(words)) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_a_bare_run_and_status_mean_the_run_before(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pipelines.yaml").write_text(PIPELINE)
    write(tmp_path / "films" / "a.mp4", Film(6, 3, 64, 48))
    Path("films/captions.csv").write_text("video,caption\na.mp4,a dog\n")
    kept = "data/work/small: as in its last run: --set compress.fps=1"

    ran(capsys, "run", "small", "--set", "compress.fps=2", "--dry-run", "-j", "1")
    assert not Path("data/work/small/_set.json").exists()
    out, _ = ran(
        capsys, "run", "small", "--set", "compress.fps=1", "--until", "compress", "-j", "1"
    )
    assert "next: python cli.py run small   (frames)" in out
    out, err = ran(capsys, "status", "small")
    assert kept in err and "compress         1/1" in out and "stale" not in out
    _, err = ran(capsys, "run", "small", "-j", "1")
    assert kept in err and "compress" in err and "up to date" in err
    out, err = ran(capsys, "status", "small", "--set", "none")
    assert kept not in err and "stale: compress.fps 1.0 -> 3.0" in out
    _, err = ran(capsys, "run", "small", "--set", "none", "-j", "1")
    assert not Path("data/work/small/_set.json").exists()
