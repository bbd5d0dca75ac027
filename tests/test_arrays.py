"""Array files: equal bytes, no pickles, nothing that lies about its size."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.arrays import read_npy, read_npz, write_npy, write_npz
from pipeline.errors import DataError


class Hostile:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("was-executed"),)


def header(shape: str, dtype: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype, "fortran_order": False, "shape": eval_shape(shape)}
    )
    return file.getvalue()


def eval_shape(shape: str) -> tuple[int, ...]:
    return tuple(int(n) for n in shape.split("x"))


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b/c": np.array([1, 2])}

    write_npz(tmp_path / "one.npz", arrays)
    write_npz(tmp_path / "two.npz", arrays)

    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert read_npz(tmp_path / "one.npz")["b/c"].tolist() == [1, 2]


def test_npy_is_mapped_and_read_only(tmp_path: Path) -> None:
    write_npy(tmp_path / "m.npy", np.eye(3).T)

    matrix = read_npy(tmp_path / "m.npy")

    assert isinstance(matrix, np.memmap)
    assert not matrix.flags.writeable


@pytest.mark.parametrize("name", ["m.npy", "m.npz"])
def test_objects_are_refused_and_never_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save = np.save if name.endswith("npy") else np.savez
    save(tmp_path / name, np.array([Hostile()], dtype=object), allow_pickle=True)
    read = read_npy if name.endswith("npy") else read_npz

    with pytest.raises(DataError, match="not a usable"):
        read(tmp_path / name)

    assert not (tmp_path / "was-executed").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        pickle.dumps([1]),
        header("1000000x1000000"),
        b"\x93NUMPY\x07\x00",
        header("2x2") + b"\0" * 15,
    ],
    ids=["empty", "text", "pickle", "promises terabytes", "unknown version", "cut short"],
)
def test_what_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.npy").write_bytes(content)

    with pytest.raises(DataError, match=r"not a usable \.npy"):
        read_npy(tmp_path / "m.npy")


@pytest.mark.parametrize(
    "member", [header("1000000x1000000"), b"text", b"", header("2x2") + b"\0" * 17]
)
def test_archives_that_lie_are_refused(tmp_path: Path, member: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("sim.npy", member)

    with pytest.raises(DataError, match=r"not a usable \.npz"):
        read_npz(tmp_path / "m.npz")


def test_damaged_archive_is_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "m.npz", {"a": np.ones(1000)})
    data = bytearray((tmp_path / "m.npz").read_bytes())
    data[2000] ^= 1
    (tmp_path / "m.npz").write_bytes(data)

    with pytest.raises(DataError, match="CRC"):
        read_npz(tmp_path / "m.npz")
