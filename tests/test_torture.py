"""SIGKILL every step of a small pipeline at random moments, resume, compare every output byte with
an undisturbed run.

CI chains 3 kills per step (2 for training) and lets a disk fill up a dozen times; `make torture` runs
the full counts: 50 (20 for training), and two dozen.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline.core.state import read_manifest
from tests.trees import tree

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "tests" / "tiny.yaml"
STEPS = list(yaml.safe_load(CONFIG.read_text())["pipelines"]["tiny"]["steps"])
FULL = os.environ.get("TVRKIT_TORTURE") == "full"
pytestmark = pytest.mark.slow


def command(folder: Path, *arguments: str) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "cli.py"),
        "run",
        "tiny",
        "--config",
        str(CONFIG),
        "--work",
        str(folder),
        *arguments,
    ]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The whole small pipeline, run once without disturbance."""
    folder = tmp_path_factory.mktemp("undisturbed")
    result = subprocess.run(
        command(folder), env=environment(), capture_output=True, text=True, timeout=900, cwd=folder
    )
    assert result.returncode == 0, result.stderr
    return folder / "tiny"


@pytest.mark.parametrize("step", STEPS)
def test_killed_step_resumes_to_the_same_bytes(step, undisturbed, tmp_path):
    few, many = (2, 20) if step.startswith("train") else (3, 50)
    kills = many if FULL else few
    for earlier in STEPS[: STEPS.index(step)]:
        shutil.copytree(undisturbed / earlier, tmp_path / "tiny" / earlier, copy_function=os.link)
    span = read_manifest(undisturbed / step)["seconds"] + 1.0
    chance = random.Random(step)

    for _ in range(kills):
        child = subprocess.Popen(
            command(tmp_path, "--only", step),
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=tmp_path,
        )
        time.sleep(0.3 + chance.uniform(0, span))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    last = subprocess.run(
        command(tmp_path, "--only", step),
        env=environment(),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert last.returncode == 0, last.stderr
    assert tree(tmp_path / "tiny" / step) == tree(undisturbed / step)


def test_disk_that_fills_up_again_and_again_costs_nothing(undisturbed, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    codes = []
    try:
        growth, times = (1.35, 24) if FULL else (1.9, 12)
        for size in (round(512 * growth**n) for n in range(times)):  # KiB, up to 0.5 GB
            result = subprocess.run(
                command(disk), env=environment(), capture_output=True, text=True, cwd=tmp_path
            )
            codes.append(result.returncode)
            if result.returncode == 0:
                break
            assert result.returncode == 6, result.stderr
            assert "are free" in result.stderr
            assert "Traceback" not in result.stderr
            subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
        finished = {step: tree(disk / "tiny" / step) for step in STEPS}
    finally:
        subprocess.run(["umount", str(disk)], check=True)

    assert codes.count(6) > 3
    assert codes[-1] == 0
    assert finished == {step: tree(undisturbed / step) for step in STEPS}
