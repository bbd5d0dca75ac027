"""Captions of one's own videos are named by their folder or by their table, to every step and
command alike.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.videos import Film, write

ROOT = Path(__file__).resolve().parents[2]
RECIPE = (
    "{extends: tiny_clip, options: {frames: 2}, train: {drop_last: false, epochs: 1,"
    " batch_size: 8}}"
)


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """videos/ with clips, their captions beside them and once more elsewhere; tensors made by
    hand.
    """
    folder = tmp_path_factory.mktemp("own")
    names = [f"{split}{n}" for split in ("train", "val", "test") for n in range(4)]
    for n, name in enumerate(names):
        write(folder / "videos" / f"{name}.mp4", Film(frames=4 + n, width=64, height=64))
    rows = [f"{name}.mp4,bars of {name},{name[:-1]}" for name in names]
    table = "\n".join(["video,caption,split", *rows])
    (folder / "videos" / "captions.csv").write_text(table)
    (folder / "table.csv").write_text(table)
    for arguments in (
        ("frames", "--in", "videos", "--out", "frames"),
        ("tensors", "--store", "frames", "--frames", "{size: 64}", "--out", "tensors"),
    ):
        result = call(folder, *arguments)
        assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("captions", ["videos", "videos/captions.csv", "table.csv"])
def test_stages_one_after_another_train_evaluate_and_search(
    own: Path, tmp_path: Path, captions: str
) -> None:
    given = ("--tensors", "tensors", "--annotations", captions)
    trained = call(own, "train", "--recipe", RECIPE, *given, "--out", str(tmp_path / "model"))
    ranked = call(
        own, "evaluate", "--in", str(tmp_path / "model"), *given, "--out", str(tmp_path / "results")
    )
    found = call(
        own,
        "search",
        str(tmp_path / "model"),
        "bars of test1",
        "--videos",
        str(tmp_path / "results"),
        "--json",
    )

    said = trained.stderr + ranked.stderr + found.stderr
    assert [r.returncode for r in (trained, ranked, found)] == [0, 0, 0], said
    assert {row["video"] for row in json.loads(found.stdout)["results"]} == {
        f"test{n}" for n in range(4)
    }


def test_table_alone_is_described_and_checked_against_a_folder_of_videos(own: Path) -> None:
    described = call(own, "describe", "table.csv", "--json")
    checked = call(own, "check", "table.csv", "--videos", "videos", "--json")

    assert (described.returncode, checked.returncode) == (0, 0), described.stderr + checked.stderr
    assert '"videos": 4' in described.stdout
