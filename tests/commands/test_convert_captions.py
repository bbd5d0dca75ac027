"""convert-captions: the JSON says what the pickle says, and nothing in a pickle is run."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

from tests.datasets.layouts import CLIPS, msvd, write

ROOT = Path(__file__).resolve().parents[2]


class Hostile:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def convert(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        str(ROOT / "cli.py"),
        "convert-captions",
        "raw-captions.pkl",
        *arguments,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_json_says_what_the_pickle_says(tmp_path: Path) -> None:
    result = convert(msvd(tmp_path))

    assert (result.returncode, result.stdout) == (0, "raw-captions.json: 9 captions of 3 videos\n")
    assert json.loads((tmp_path / "raw-captions.json").read_text())[CLIPS[1]] == [
        "a caption 0",
        "a caption 1",
    ]


def test_file_that_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    write(msvd(tmp_path) / "raw-captions.json", "mine")

    assert convert(tmp_path).returncode == 2
    assert (tmp_path / "raw-captions.json").read_text() == "mine"
    assert convert(tmp_path, "--force").returncode == 0


def test_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "raw-captions.pkl", pickle.dumps({"a": Hostile()}))

    result = convert(tmp_path)

    assert result.returncode == 4
    assert "asks for posix.system, which was refused" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw-captions.pkl"]
