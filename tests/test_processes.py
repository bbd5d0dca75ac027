"""Several processes: who they are, that they train like one, that rank 0 alone writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline import processes as distributed
from pipeline.checkpoints.archive import read_archive
from pipeline.errors import ConfigError
from pipeline.processes import World
from tests.training import pairs

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


def test_without_torchrun_there_is_one_process_and_no_group(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    world = World.of_environment()

    distributed.join(world, torch.device("cpu"), 1)

    assert not torch.distributed.is_initialized()
    assert world == World(0, 1) and world.is_first
    assert distributed.any_of(True, world, torch.device("cpu"))
    assert distributed.from_first({"a": 1}, world) == {"a": 1}


def test_rank_and_size_are_those_of_torchrun(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    assert World.of_environment() == World(rank=3, size=8, local_rank=1, local_size=2)


def test_half_an_environment_is_refused(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")

    with pytest.raises(ConfigError, match="torchrun --nproc-per-node"):
        World.of_environment()


def torchrun(folder: Path, processes: int, *arguments: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    command += ["-m", "tests.training.pairs", str(folder), *arguments]
    environment = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT} | {
        "OMP_NUM_THREADS": "1"
    }
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_archive(folder / "checkpoints" / "last.pt")["weights"]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["micro_batch=4"]])  # 4 of the 6 captions of a process
def test_two_processes_train_like_one_with_the_same_global_batch(tmp_path, more):
    pairs.train(tmp_path / "one", {"optimizer": {"name": "adam", "lr": 0.01}})

    result = torchrun(tmp_path / "two", 2, "optimizer={name: adam, lr: 0.01}", *more)

    assert result.returncode == 0, result.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    # sums over two halves of a batch are rounded differently; Adam turns that into at most a few
    # 1e-6 per step
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    losses = [
        [json.loads(s)["loss"] for s in (tmp_path / n / "metrics.jsonl").open() if "train" in s]
        for n in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_parameter_without_part_in_the_loss_is_named_instead_of_hanging(tmp_path):
    result = torchrun(tmp_path, 2, "spare=true")

    assert result.returncode != 0
    assert "1 trainable parameters have no part in the loss: spare" in result.stderr
    allowed = torchrun(tmp_path, 2, "spare=true", "distributed={find_unused_parameters: true}")
    assert allowed.returncode == 0, allowed.stderr
