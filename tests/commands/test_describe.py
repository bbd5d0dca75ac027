"""The describe command: table, files, JSON, durations from a check."""

import json
from pathlib import Path

import pytest

import cli
from tests.videos import Film, write


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "test.caption.txt"
    path.write_text("a#0 one film\na#1 the same <b>film</b> again\nb#0 another film\n")
    return path


def test_table_picture_and_page_are_made(captions: Path, capsys: pytest.CaptureFixture):
    code = cli.main(
        ["describe", str(captions), "--out", str(captions.parent / "out"), "--words", "4"]
    )

    out = capsys.readouterr().out
    page = (captions.parent / "out/describe.html").read_text()
    assert code == 0
    assert "cut at 4 tokens" in out
    assert (captions.parent / "out/describe.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64," in page and "captions per video" in page


def test_json_holds_every_split(captions: Path, capsys: pytest.CaptureFixture):
    cli.main(["describe", str(captions), "--out", str(captions.parent / "out"), "--json"])

    facts = json.loads(capsys.readouterr().out)["train"]
    assert (facts["texts"], facts["videos"], facts["cut_at"]) == (3, 2, 32)
    assert facts["captions"]["most"] == 2


def test_durations_come_from_a_check(captions: Path, capsys: pytest.CaptureFixture):
    folder = captions.parent
    for name, frames in (("a", 25), ("b", 75)):
        write(folder / f"films/{name}.mp4", Film(frames=frames))
    cli.main(
        [
            "check",
            str(captions),
            "--videos",
            str(folder / "films"),
            "--out",
            str(folder / "checked"),
            "-j",
            "1",
        ]
    )
    capsys.readouterr()

    more = ["--check", str(folder / "checked"), "--out", str(folder / "out"), "--json"]
    cli.main(["describe", str(captions), *more])

    seconds = json.loads(capsys.readouterr().out)["train"]["seconds"]
    assert (seconds["count"], seconds["least"], seconds["most"]) == (2, 1.0, 3.0)


def test_an_unknown_dataset_gets_a_suggestion(capsys: pytest.CaptureFixture):
    assert cli.main(["describe", "dem"]) == 2

    assert "Did you mean demo?" in capsys.readouterr().err
