"""Reading archives: nothing is executed, damage is found, every refusal is explained."""

import argparse
import io
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.checkpoints.archive import read_archive
from pipeline.errors import DataError
from tests.checkpoints.archives import content, same


class Evil:
    """Unpickled by a careless program, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("published", [True, False])
def test_hostile_file_is_refused_by_name_and_executes_nothing(tmp_path, zipped, published):
    path = tmp_path / "a.pt"
    torch.save(
        {"weights": {"w": torch.ones(2)}, "x": Evil(tmp_path / "pwned")},
        path,
        _use_new_zipfile_serialization=zipped,
    )

    with pytest.raises(
        DataError, match=r"refused: it asks for posix.system.*\n.*Nothing in it was executed"
    ):
        read_archive(path, published=published)

    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(("value", "name"), [
    (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    (argparse.Namespace(a=1), "argparse.Namespace"),
    ({"x": np.ones(3)}, "reconstruct"),
])  # fmt: skip
def test_what_is_no_plain_value_is_refused_by_name(tmp_path, value, name):
    torch.save(value, tmp_path / "a.pt")

    with pytest.raises(DataError, match=name):
        read_archive(tmp_path / "a.pt")


def test_published_files_may_hold_float_arrays_and_a_namespace(tmp_path):
    value = {
        "args": {"pretrained_weight": np.arange(6, dtype=np.float32).reshape(2, 3)},
        "opt": argparse.Namespace(lr=0.1),
    }
    torch.save(value, tmp_path / "a.bin")

    read = read_archive(tmp_path / "a.bin", published=True)

    assert torch.equal(read["args"]["pretrained_weight"], torch.arange(6.0).view(2, 3))
    assert read["opt"] == {"lr": 0.1}


@pytest.mark.parametrize("dtype", [object, "U3", np.int64])
def test_published_files_may_hold_no_other_arrays(tmp_path, dtype):
    torch.save({"x": np.array([1, 2], dtype=dtype)}, tmp_path / "a.bin")

    with pytest.raises(DataError):
        read_archive(tmp_path / "a.bin", published=True)


def test_published_checkpoints_load(shared):
    names = [
        "eval-bigru/checkpoint.bin",
        "eval-unigru-pretrained/checkpoint.bin",
        "prune-w/checkpoint_pruned_w_0.2.bin",
    ]
    names += ["hybrid-space-eval/model_best.pth.tar"]

    for name in names:
        value = read_archive(shared / "golden" / "dual-encoding" / name, published=True)

        assert isinstance(value, dict)
        assert value.keys() >= {"args", "state_dict"} or value.keys() >= {"model", "opt"}


def test_archive_that_expands_beyond_its_size_is_refused_unread(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50 << 20))

    with pytest.raises(DataError, match="claims to hold 52,428,800 bytes"):
        read_archive(tmp_path / "a.pt")


def test_torchscript_program_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "a.pt")

    with pytest.raises(DataError, match="TorchScript program"):
        read_archive(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x80\x02", b"PK\x03\x04" + bytes(200), os.urandom(500)]
)
def test_garbage_is_no_checkpoint(tmp_path, data):
    (tmp_path / "a.pt").write_bytes(data)

    with pytest.raises(DataError, match="not a readable checkpoint"):
        read_archive(tmp_path / "a.pt")


def test_damage_anywhere_is_found(tmp_path):
    buffer = io.BytesIO()
    torch.save(content(), buffer)
    whole, rng = buffer.getvalue(), random.Random(0)
    for n in range(200):
        data = bytearray(whole)
        if n % 2:
            data = data[: rng.randrange(len(data))]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "a.pt").write_bytes(data)

        try:  # a flipped bit in padding or in a field nobody reads changes nothing
            assert same(read_archive(tmp_path / "a.pt"), content())
        except DataError as error:
            assert error.fix


def _key_bomb() -> bytes:
    """{t60: 1} with tn = (tn-1, tn-1): its hash visits 2 to the power of 60 values."""
    doubled = b"".join(b"h%ch%c\x86q%c0" % (i, i, i + 1) for i in range(60))
    return b"\x80\x02})q\x000" + doubled + b"h\x3cK\x01s."


@pytest.mark.parametrize("older", [False, True])
def test_a_key_whose_hash_never_ends_is_refused(older: bool, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    if older:
        path.write_bytes(_key_bomb())
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", _key_bomb())
            archive.writestr("archive/version", "3\n")

    with pytest.raises(DataError, match="countless values"):
        read_archive(path)
