"""Reading and writing .npy and .npz: no pickles, no more memory than the file holds, equal bytes
for equal arrays.
"""

import contextlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.core.files import atomic_path
from pipeline.errors import DataError

_FIX = "Save it again with numpy.save or numpy.savez (no object arrays, no pickles)."


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy file, mapped read-only. DataError if it is no such file, truncated, or
    holds objects.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=path, fix="Check the path.") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"not a usable .npy file: {_first_line(error)}", where=path, fix=_FIX
        ) from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name.

    DataError if it is no such file, damaged, or holds objects, or if a header promises another size
    than the archive holds (such a file could ask for any amount of memory).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename.removesuffix(".npy"): _member(archive, info)
                for info in archive.infolist()
            }
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=path, fix="Check the path.") from error
    except (
        OSError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:  # last: odd compression
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
        if info.file_size > 1000 * max(info.compress_size, 1) and info.file_size > 1 << 30:
            raise ValueError(
                f"{info.filename} expands {info.compress_size:,} bytes to {info.file_size:,}"
            )
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


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
