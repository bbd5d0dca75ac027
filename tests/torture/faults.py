"""Run a command while calls of the system fail: a library in C that is preloaded (faults.c)."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

_SOURCE = Path(__file__).with_name("faults.c")


def library(folder: Path) -> Path:
    """The library, built into `folder`; the test is skipped where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("there is no C compiler (Debian: apt-get install gcc libc6-dev)")
    made = folder / "faults.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(_SOURCE), "-ldl"], check=True
    )
    return made


def run(
    arguments: list[str],
    made: Path,
    folder: Path,
    *,
    first: int = 0,
    last: int = 0,
    number: int = 0,
) -> tuple[subprocess.CompletedProcess, int]:
    """Run `cli.py` with `arguments`; calls `first` to `last` below `folder` fail with `number`.

    Returns the finished process and how many such calls there were.
    """
    counter = made.with_name("counter")
    counter.unlink(missing_ok=True)
    faults = f"{folder}:{counter}:{first}:{last}:{number}"
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "LD_PRELOAD": str(made),
        "TVRKIT_FAULTS": faults,
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder.parent,
        start_new_session=True,
    )
    calls = struct.unpack("l", counter.read_bytes())[0] if counter.exists() else 0
    return done, calls
