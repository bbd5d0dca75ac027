"""The check command on real files: exit codes, report, resumption, bad names."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cli
from tests.conftest import ROOT
from tests.video.test_hdr import PQ, bars, film, in_hdr
from tests.videos import Film, cut, write


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A caption file about the films a and b, and a folder with both."""
    (tmp_path / "test.caption.txt").write_text("a#0 one film\na#1 the same\nb#0 another film\n")
    for n, name in enumerate("ab"):
        write(tmp_path / f"films/{name}.mp4", Film(frames=9 + n, fps=3, width=80, height=64))
    return tmp_path


def check(folder: Path, capsys: pytest.CaptureFixture, *more: object) -> tuple[int, str, str]:
    arguments = [
        folder / "test.caption.txt",
        "--videos",
        folder / "films",
        "--out",
        folder / "out",
        "-j",
        1,
        *more,
    ]
    code = cli.main(["check", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def report(folder: Path) -> dict:
    return json.loads((folder / "out/report.json").read_bytes())


def test_all_is_well(world: Path, capsys: pytest.CaptureFixture):
    code, out, _ = check(world, capsys, "--fps", 3, "--short-side", 64)

    assert code == 0
    assert "nothing is wrong" in out
    assert report(world)["ok"] is True
    assert report(world)["splits"]["train"] == {
        "texts": 3,
        "videos": 2,
        "files": 2,
        "published": None,
    }


def test_hdr_is_noted_by_name(world: Path, capsys: pytest.CaptureFixture):
    (world / "films/b.mp4").unlink()
    film(world / "films/b.mp4", PQ, [in_hdr(bars(), PQ)] * 3)

    code, _, err = check(world, capsys)

    assert code == 0
    assert "tone-mapped to SDR: 1 files (b)" in err


def test_faults_are_shown_counted_and_end_with_code_1(world: Path, capsys: pytest.CaptureFixture):
    cut(write(world / "films/b.mp4", Film(frames=60, noise=30)), 0.6)
    for n in range(5):
        write(world / f"films/extra{n}.mp4", Film(frames=4 + n))

    code, out, err = check(world, capsys)

    assert code == 1
    assert "5 extra" in out and "..." in out
    assert "1 damaged" in out and "b: truncated" in out
    assert "6 faults: extra, damaged" in err
    assert report(world)["faults"]["extra"]["count"] == 5


def test_what_is_allowed_is_not_wrong(world: Path, capsys: pytest.CaptureFixture):
    write(world / "films/extra.mp4")

    assert check(world, capsys, "--allow", "extra")[0] == 0
    assert report(world)["faults"]["extra"]["count"] == 1


def test_fast_does_not_find_a_cut_file_and_full_does(world: Path, capsys: pytest.CaptureFixture):
    cut(write(world / "films/b.mp4", Film(frames=60, noise=30)), 0.6)

    assert check(world, capsys, "--fast")[0] == 0
    assert check(world, capsys)[0] == 1


def test_a_second_check_opens_nothing_again(world: Path, capsys: pytest.CaptureFixture):
    check(world, capsys)

    _, _, err = check(world, capsys, "--json")

    journal = (world / "out/full/_state/items.jsonl").read_text().splitlines()
    assert len(journal) == 2
    assert "done (" not in err


def test_a_file_that_was_replaced_is_looked_at_again(world: Path, capsys: pytest.CaptureFixture):
    (world / "films/b.mp4").write_bytes(b"")
    assert check(world, capsys)[0] == 1

    write(world / "films/b.mp4", Film(frames=12))

    assert check(world, capsys)[0] == 0


def test_the_json_on_stdout_is_the_report(world: Path, capsys: pytest.CaptureFixture):
    _, out, _ = check(world, capsys, "--json")

    assert json.loads(out) == report(world)


@pytest.mark.parametrize(
    ("option", "value", "kind"), [("--fps", 25, "wrong_fps"), ("--short-side", 80, "wrong_size")]
)
def test_another_rate_or_size_than_asked_for_is_wrong(
    option, value, kind, world: Path, capsys
) -> None:
    code, out, _ = check(world, capsys, option, value)

    assert code == 1
    assert f"2 {kind}" in out
    assert report(world)["faults"].keys() == {kind}


def test_a_killed_check_goes_on_and_says_the_same(
    world: Path, capsys: pytest.CaptureFixture
) -> None:
    film = write(world / "films/c.mp4", Film(frames=90, noise=30)).read_bytes()
    for n in range(40):
        (world / f"films/c{n}.mp4").write_bytes(film + bytes(n))
    arguments = [
        "check",
        world / "test.caption.txt",
        "--videos",
        world / "films",
        "--out",
        world / "out",
        "-j",
        "1",
    ]
    started = subprocess.Popen(
        [sys.executable, "cli.py", *map(str, arguments)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    journal = world / "out/full/_state/items.jsonl"
    while not journal.exists() or journal.stat().st_size == 0:
        time.sleep(0.005)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()

    code, _, err = check(world, capsys)

    killed = report(world)
    assert code == 1
    assert 0 < int(err.split(" new, ")[1].split(" kept")[0]) < 43
    assert check(world, capsys, "--out", world / "whole")[0] == 1
    assert json.loads((world / "whole/report.json").read_bytes()) == killed


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [("demoo", 2, "Did you mean demo?"), ("demo", 4, "no such folder")],
)
def test_wrong_names_and_folders_say_what_to_do(
    name: str, code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    found = cli.main(
        ["check", name, "--videos", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    )

    assert found == code
    assert words in capsys.readouterr().err


def test_the_annotations_of_ones_own_folder_are_read(tmp_path: Path, capsys: pytest.CaptureFixture):
    write(tmp_path / "films/a.mp4", Film(frames=5))
    (tmp_path / "films/captions.csv").write_text(
        "video,caption\na.mp4,one film\nb.mp4,another one\n"
    )

    code = cli.main(["check", str(tmp_path / "films"), "--out", str(tmp_path / "out"), "-j", "1"])

    assert code == 1
    assert "1 missing" in capsys.readouterr().out


def test_videos_that_the_options_drop_are_missing_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    write(tmp_path / "videos/1_A_00.01.avi", Film(frames=5))
    for split in ("training", "val"):
        (tmp_path / f"LSMDC16_annos_{split}.csv").write_text(
            "1_A_00.01\t0\t1\t0\t1\tSOMEONE goes.\n"
        )
    two = "1_A_00.01\t0\t1\t0\t1\tSOMEONE goes.\n1_B_00.02\t0\t1\t0\t1\tSOMEONE comes.\n"
    (tmp_path / "LSMDC16_challenge_1000_publictect.csv").write_text(two)
    (tmp_path / "own.yaml").write_text(
        f"datasets:\n  own: {{type: lsmdc, root: {tmp_path}, missing: drop}}\n"
    )

    code = cli.main(
        [
            "check",
            "own",
            "--config",
            str(tmp_path / "own.yaml"),
            "--out",
            str(tmp_path / "out"),
            "-j",
            "1",
        ]
    )

    assert code == 1
    assert report(tmp_path)["faults"]["missing"]["items"] == ["1_B_00.02"]
    assert report(tmp_path)["faults"].keys() == {"missing", "protocol"}
