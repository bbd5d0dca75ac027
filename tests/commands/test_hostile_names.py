"""Ids with line breaks and escapes: every table keeps one line for one item."""

from pathlib import Path

import pytest

import cli

HOSTILE = "clip\nstep up to date\x1b[31m"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A pipeline on a folder with a broken film whose name is hostile; compress set it aside."""
    films = tmp_path / "films"
    films.mkdir()
    (films / f"{HOSTILE}.mp4").write_bytes(b"no film")
    (films / "captions.csv").write_text(f'video,caption,split\n"{HOSTILE}.mp4",a dog,train\n')
    (tmp_path / "own.yaml").write_text(
        f"datasets: {{own: {{type: folder, root: {films}}}}}\n"
        "pipelines: {own: {dataset: own, steps: {compress: {}}}}\n"
    )
    return tmp_path


def test_failures_and_status_have_a_line_for_each_item(
    work: Path, capsys: pytest.CaptureFixture
) -> None:
    shared = ("own", "--config", str(work / "own.yaml"), "--work", str(work / "work"))
    cli.main(["run", *shared, "--max-failures", "1"])
    capsys.readouterr()

    for command in ("failures", "status"):
        assert cli.main([command, *shared]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert not any(line.startswith("step up to date") for line in out.splitlines())
        if command == "failures":
            assert len(out.splitlines()) == 1 and "clip\\nstep" in out
