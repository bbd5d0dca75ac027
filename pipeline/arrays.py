"""Reading and writing .npy and .npz: no pickles, no more memory than the file holds, equal bytes
for equal arrays.
"""

import contextlib
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.core.files import atomic_path
from pipeline.errors import DataError

_FIX = "Save it again with numpy.save or numpy.savez (no object arrays, no pickles)."
_NPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_MOST_EXPANSION = 64  # bytes in memory for a byte of the archive
_FREE_BYTES = 64 << 20  # up to here an archive may expand as it likes


def read_npy(path: Path) -> np.ndarray:
    """Return the array of a .npy file, mapped read-only. DataError if it is no such file,
    truncated, or holds objects.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_NPY))
        if start != _NPY:
            raise ValueError(_what_begins_with(start))
        with path.open("rb") as file:
            if _header(file)[1].hasobject:
                raise ValueError("it holds Python objects, not an array of numbers")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=path, fix="Check the path.") from error
    except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise DataError(
            f"not a usable .npy file: {_first_line(error)}", where=path, fix=_FIX
        ) from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz file by name.

    DataError if it is no such file, damaged, or holds objects, or if a header promises another size
    than the archive holds (such a file could ask for any amount of memory).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_expansion(path, members)
            return {info.filename.removesuffix(".npy"): _member(archive, info) for info in members}
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=path, fix="Check the path.") from error
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        NotImplementedError,  # odd compression
        SyntaxError,
        tokenize.TokenError,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise DataError(
            f"not a usable .npz file: {_first_line(error)}", where=path, fix=_FIX
        ) from error


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays uncompressed, atomically. NumPy dates the members 1980, so the bytes depend on
    the arrays alone.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write one array atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        shape, dtype, start = _header(file)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects")
        promised = int(np.prod(shape, dtype=object)) * dtype.itemsize if shape else dtype.itemsize
        if promised != info.file_size - start:
            raise ValueError(
                f"{info.filename} promises {promised:,} bytes and holds {info.file_size - start:,}"
            )
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _check_expansion(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise ValueError if an archive would fill much more memory than its size on disk."""
    expanded = sum(info.file_size for info in members)
    size = path.stat().st_size
    if expanded > max(_FREE_BYTES, _MOST_EXPANSION * size):
        raise ValueError(f"{size:,} bytes that would expand to {expanded:,}")


def _what_begins_with(start: bytes) -> str:
    """Return what a file is, by its first bytes, that should have been a .npy file."""
    if start.startswith(_ZIP):
        return "a zip archive, as numpy.savez and torch.save write it, not one array"
    if start.startswith(b"\x89HDF"):
        return "an HDF5 file"
    return "it does not begin as numpy.save begins"


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"format version {version}")
    shape, _, dtype = read(file)
    return shape, dtype, file.tell()


def _first_line(error: Exception) -> str:
    with contextlib.suppress(IndexError):
        return str(error).splitlines()[0][:200]
    return type(error).__name__
