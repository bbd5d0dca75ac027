"""The command line as another process, in the folder of the test."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run `cli.py` with the words given and return what it printed."""

    def call(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "cli.py"), *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return call
