"""Two processes started by torchrun train and evaluate through the command line like one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.checkpoints.archive import read_archive
from pipeline.core.state import read_manifest

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
datasets:
  tiny: {type: synthetic, root: tiny, videos: {train: 16, val: 10, test: 10}, captions_per_video: 2, seed: 3}
recipes:
  smallest:
    model: centerclip
    options: {backbone: tiny, frames: 3, words: 16}
    train:
      epochs: 2
      batch_size: 8
      log_every: 1
      precision: float32
      evaluation: {batch_size: 4}
      optimizer: {name: adamw, lr: 1.0e-3, eps: 1.0e-3}  # large, so that rounding does not become a step of lr
      schedule: {name: constant, warmup: 0}
pipelines:
  tiny:
    dataset: tiny
    steps:
      synthesize: {}
      compress: {fps: 3, short_side: 64}
      frames: {}
      tensors: {frames: {size: 64}}
      train: {recipe: smallest, threads: 1, tensorboard: false}
      evaluate: {batch_size: 4, device: cpu}
"""
pytestmark = pytest.mark.slow


def call(folder: Path, *arguments: str, processes: int = 1) -> subprocess.CompletedProcess:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [
        str(ROOT / "cli.py"),
        *arguments,
        "--config",
        str(folder / "own.yaml"),
        "--work",
        str(folder / "work"),
    ]
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    environment = {k: v for k, v in os.environ.items() if k not in names} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The whole pipeline, run by one process."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "own.yaml").write_text(CONFIG)
    result = call(folder, "run", "tiny")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def two(one, tmp_path) -> Path:
    """Everything in front of training, linked; training and evaluation are still to be done."""
    (tmp_path / "own.yaml").write_text(CONFIG)
    for step in ("synthesize", "compress", "frames", "tensors"):
        shutil.copytree(
            one / "work/tiny" / step, tmp_path / "work/tiny" / step, copy_function=os.link
        )
    return tmp_path


def lines(folder: Path, event: str) -> list[dict]:
    text = (folder / "work/tiny/train/metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["event"] == event]


def test_two_processes_train_and_evaluate_like_one(one, two):
    trained = call(two, "run", "tiny", "--only", "train", processes=2)
    evaluated = call(two, "run", "tiny", "--only", "evaluate", "--json", processes=2)

    assert (trained.returncode, evaluated.returncode) == (0, 0), trained.stderr + evaluated.stderr
    weights = [
        read_archive(f / "work/tiny/train/checkpoints/last.pt")["weights"] for f in (one, two)
    ]
    # the halves of a batch are summed in another order
    assert max((weights[0][n] - weights[1][n]).abs().max().item() for n in weights[0]) < 1e-5
    for event, name in (("train", "loss"), ("train", "grad_norm"), ("validation", "rsum")):
        expected = [line[name] for line in lines(one, event)]
        assert [line[name] for line in lines(two, event)] == pytest.approx(expected, rel=1e-3)
    metrics = [
        json.loads((f / "work/tiny/evaluate/train/metrics.json").read_text()) for f in (one, two)
    ]
    assert metrics[0]["results"]["none"]["t2v"]["R5"] == metrics[1]["results"]["none"]["t2v"]["R5"]
    vectors = [np.load(f / "work/tiny/evaluate/train/encodings.npz") for f in (one, two)]
    assert all(np.allclose(vectors[0][n], vectors[1][n], atol=1e-3) for n in vectors[0].files)
    assert read_manifest(two / "work/tiny/train")["counts"]["ok"] == 1
    assert "evaluate" in json.loads(evaluated.stdout)  # once: rank 0 alone speaks


def test_finished_step_is_up_to_date_for_every_process(two):
    first, again = (call(two, "run", "tiny", "--only", "train", processes=2) for _ in range(2))

    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "up to date" in again.stderr


def test_batch_that_the_processes_cannot_share_is_a_mistake(two):
    text = CONFIG.replace("batch_size: 8", "batch_size: 7")
    (two / "own.yaml").write_text(text)

    result = call(two, "run", "tiny", "--only", "train", processes=2)

    assert result.returncode != 0
    assert (
        "a global batch of 7 cannot be shared by 2 processes" in result.stderr
        and "Use 6" in result.stderr
    )


def test_whole_pipeline_under_torchrun_is_refused(two):
    result = call(two, "run", "tiny", processes=2)

    assert result.returncode != 0 and "add --only STEP" in result.stderr
