"""Writing archives: whole or absent, equal bytes for equal content."""

import datetime
import multiprocessing
import os
import random
from pathlib import Path

import pytest
import torch

from pipeline.checkpoints.archive import read_archive
from pipeline.checkpoints.archive_writer import write_archive
from pipeline.errors import SystemRefused
from tests.checkpoints.archives import content, same


def test_what_is_written_is_read_back(tmp_path):
    write_archive(tmp_path / "a.pt", content())

    assert same(read_archive(tmp_path / "a.pt"), content())


def test_equal_content_has_equal_bytes_whatever_was_shared_in_memory(tmp_path):
    word = "".join(["na", "me"])
    shared = {word: [1, 2]}
    big = torch.arange(10.0)
    write_archive(tmp_path / "a.pt", {"x": shared, "y": shared, "t": big[2:5], "u": [word, word]})

    again = {
        "x": {"name": [1, 2]},
        "y": {"name": [1, 2]},
        "t": torch.tensor([2.0, 3.0, 4.0]),
        "u": ["name", "na" + "me"],
    }
    write_archive(tmp_path / "other name.pt", again)

    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "other name.pt").read_bytes()


def test_only_tensors_and_plain_values_can_be_written(tmp_path):
    with pytest.raises(TypeError, match="datetime"):
        write_archive(tmp_path / "a.pt", {"when": datetime.datetime.now()})

    assert list(tmp_path.iterdir()) == []


def _rewrite_for_ever(path: Path) -> None:
    for n in range(10**9):
        write_archive(path, content(n % 2) | {"ballast": torch.zeros(1_000_000)})


def test_kill_while_saving_leaves_the_old_or_the_new_file(tmp_path):
    path, rng = tmp_path / "last.pt", random.Random(1)
    write_archive(path, content())
    for _ in range(min(30, int(os.environ.get("TVRKIT_KILLS", "5")))):
        child = multiprocessing.get_context("fork").Process(target=_rewrite_for_ever, args=(path,))
        child.start()
        child.join(rng.uniform(0.02, 0.2))
        child.kill()
        child.join()

        assert any(same(read_archive(path), content(seed)) for seed in (0, 1))


def test_full_disk_is_said_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    write_archive(path, content())
    refused = multiprocessing.get_context("fork").Process(target=_write_with_a_limit, args=(path,))

    refused.start()
    refused.join()

    assert refused.exitcode == 0
    assert same(read_archive(path), content())
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def _write_with_a_limit(path: Path) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    with pytest.raises(SystemRefused, match="file-size limit"):
        write_archive(path, {"w": torch.zeros(1_000_000)})
