"""SIGKILL every step of a small pipeline at random moments, resume, compare every output byte with
an undisturbed run; and what else happens to people: inputs that are gone for a moment, workers that
are killed, a training that is changed, merges and retries that are cut.

CI chains 3 kills per step (2 for training) and lets a disk fill up a dozen times; `make torture` runs
the full counts: 50 (20 for training), and two dozen.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
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


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """The command line, run to its end in `folder`."""
    return subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
    )


def kill_at_random(folder: Path, seed: str, *arguments: str, seconds: float) -> None:
    """The command line, ended by SIGKILL within `seconds`, its workers with it."""
    child = subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), *arguments],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=folder,
    )
    time.sleep(0.3 + random.Random(seed).uniform(0, seconds))
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


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
def test_killed_step_resumes_to_the_same_bytes(step, undisturbed, tmp_path, record_property):
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
    record_property("torture", (step, "SIGKILL at random, again and again", f"{kills} of {kills}"))


def test_disk_that_fills_up_again_and_again_costs_nothing(undisturbed, tmp_path, record_property):
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
    record_property("torture", ("all steps", "the disk fills up, and grows", f"{len(codes)} runs"))


@pytest.fixture
def clips(undisturbed: Path, tmp_path: Path) -> Path:
    """A folder of clips that a person may move, and its result `small` beside it."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for path in sorted((undisturbed / "synthesize").rglob("*.mp4"))[:12]:
        shutil.copy(path, folder / path.name)
    done = call(tmp_path, *SMALL)
    assert done.returncode == 0, done.stderr
    return folder


SMALL = ("compress", "--in", "clips", "--out", "small", "--fps", "3", "--short-side", "32")


@pytest.mark.parametrize("what", ["empty", "not mounted", "most files gone"])
def test_input_that_is_gone_for_a_moment_empties_nothing(what, clips, tmp_path, record_property):
    before = tree(tmp_path / "small")
    away = tmp_path / "away"
    if what == "most files gone":
        away.mkdir()
        for path in sorted(clips.iterdir())[:10]:
            path.rename(away / path.name)
    else:
        clips.rename(away)
        if what == "empty":
            clips.mkdir()

    refused = call(tmp_path, *SMALL)

    assert refused.returncode == 4, refused.stderr
    assert tree(tmp_path / "small") == before
    if clips.is_dir():
        for path in away.iterdir():
            path.rename(clips / path.name)
    else:
        away.rename(clips)
    again = call(tmp_path, *SMALL)
    assert again.returncode == 0 and "up to date" in again.stderr, again.stderr
    record_property("torture", ("compress", f"input: {what}", "refused, output kept"))


def test_workers_that_are_killed_cost_nothing(clips, tmp_path, record_property):
    before = tree(tmp_path / "small")
    chance = random.Random(7)
    killed = 0
    for _ in range(20 if FULL else 2):
        child = subprocess.Popen(
            [sys.executable, str(ROOT / "cli.py"), *SMALL, "--force", "--jobs", "2"],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        workers: list[psutil.Process] = []
        while not workers and child.poll() is None:
            workers = psutil.Process(child.pid).children(recursive=True)
        time.sleep(chance.uniform(0, 0.5))
        for worker in workers[:1]:
            if worker.is_running():
                worker.kill()
                killed += 1
        _, said = child.communicate(timeout=120)
        assert child.returncode == 0, said
        assert "internal error" not in said
    assert tree(tmp_path / "small") == before
    record_property(
        "torture", ("compress", "a worker is killed, idle or not", f"{killed} of {killed}")
    )


def test_training_that_is_changed_and_killed_leaves_the_old_model_answering(
    undisturbed, tmp_path, record_property
):
    shutil.copytree(undisturbed, tmp_path / "tiny")
    whole = tree(tmp_path / "tiny" / "train")
    kills = 20 if FULL else 1
    changed = ("--set", "train.recipe.train.epochs=5000")  # no kill comes after its end
    for n in range(kills):
        only = command(tmp_path, "--only", "train", *changed)[2:]
        kill_at_random(tmp_path, f"train {n}", *only, seconds=6.0)
        found = call(tmp_path, "search", "tiny/train", "a red circle", "--videos", "tiny/evaluate")
        assert found.returncode == 0, found.stderr

    back = subprocess.run(
        command(tmp_path, "--only", "train", "--set", "none"),
        env=environment(),
        capture_output=True,
        text=True,
    )

    assert back.returncode == 0, back.stderr
    found = tree(tmp_path / "tiny" / "train")
    assert {name: found.get(name) for name in whole} == whole
    record_property(
        "torture", ("train", "other options, SIGKILL: old model answers", f"{kills} of {kills}")
    )


def test_merge_that_is_killed_goes_on_to_the_same_bytes(undisturbed, tmp_path, record_property):
    shutil.copytree(undisturbed / "synthesize", tmp_path / "tiny" / "synthesize")
    for part in ("0/2", "1/2"):
        done = subprocess.run(
            command(tmp_path, "--only", "compress", "--shard", part),
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    merge = ("merge", "tiny", "compress", "--config", str(CONFIG), "--work", str(tmp_path))
    kills = 20 if FULL else 2
    for n in range(kills):
        kill_at_random(tmp_path, f"merge {n}", *merge, seconds=1.5)

    done = call(tmp_path, *merge)

    finished = call(tmp_path, "status", "tiny", "--config", str(CONFIG), "--work", str(tmp_path))
    assert done.returncode == 0 or "compress" in finished.stdout, done.stderr
    assert tree(tmp_path / "tiny" / "compress") == tree(undisturbed / "compress")
    record_property("torture", ("compress", "SIGKILL during merge", f"{kills} of {kills}"))


def test_retry_that_is_killed_goes_on_to_the_same_bytes(clips, tmp_path, record_property):
    names = sorted(path.name for path in clips.iterdir())
    rows = [f"{name},a clip,train" for name in names]
    (clips / "captions.csv").write_text("\n".join(["video,caption,split", *rows]))
    (tmp_path / "own.yaml").write_text(
        "datasets: {own: {type: folder, root: clips}}\n"
        "pipelines: {own: {dataset: own, steps: {compress: {fps: 3, short_side: 32}}}}\n"
    )
    shared = ("own", "--config", "own.yaml", "--work")
    whole = {name: (clips / name).read_bytes() for name in names[:6]}
    for name in whole:
        (clips / name).write_bytes(b"no film")
    call(tmp_path, "run", *shared, "work", "--max-failures", "1")
    aside = call(tmp_path, "failures", *shared, "work", "--json")
    assert len(json.loads(aside.stdout)) == len(whole), aside.stderr
    for name, content in whole.items():
        (clips / name).write_bytes(content)

    kills = 20 if FULL else 2
    retry = ("failures", *shared, "work", "--retry")
    for n in range(kills):
        kill_at_random(tmp_path, f"retry {n}", *retry, seconds=2.0)
    last = call(tmp_path, *retry)

    fresh = call(tmp_path, "run", *shared, "fresh")
    assert (last.returncode, fresh.returncode) == (0, 0), last.stderr + fresh.stderr
    assert tree(tmp_path / "work/own/compress") == tree(tmp_path / "fresh/own/compress")
    record_property(
        "torture", ("compress", "SIGKILL during failures --retry", f"{kills} of {kills}")
    )
