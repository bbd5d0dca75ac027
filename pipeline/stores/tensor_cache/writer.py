"""TensorCacheWriter: builds a tensor cache in parts that are whole or absent.

HDF5 files do not survive a kill while they are written, so each part is written under a temporary
name, read back, fsynced and renamed. A part holds the videos at positions 64k to 64k+63 of the
step's items (those that did not fail), so its bytes depend on nothing but the items.
"""

import contextlib
import errno
import os
import shutil
import zlib
from pathlib import Path

import numpy as np

from pipeline.core.files import TEMPORARY, atomic_write, commit_file, sync_folder
from pipeline.core.state import canonical
from pipeline.errors import DataError
from pipeline.stores.tensor_cache.reader import INDEX, SCHEMA, Entry, Kind, TensorCache

PART_ITEMS = 64
_PAGE = 4096
_ROOM_FOR_INDEX = 1 << 20  # what HDF5 writes besides the arrays of a part
_START_AGAIN = "Build it anew: the same command with --force (in a pipeline: --force STEP)."


class TensorCacheWriter:
    """One writer, in one process. Order of calls: open, put (positions rising) ..., flush ...,
    finish, close.
    """

    def __init__(self, folder: Path, kind: Kind, attrs: dict):
        self.folder, self._kind, self._attrs = folder, kind, attrs
        self._partial = folder.with_name(f"{folder.name}.partial")
        self._part: _Part | None = None
        self._is_renamed = False

    def open(self, positions: dict[str, int]) -> None:
        """Bring the parts to exactly the videos in `positions` (id -> position), in this order.

        DataError if one of them was lost.
        """
        if positions and not self._partial.exists():
            self._expect_finished(list(positions))
            self._is_renamed = True
            return
        if not positions:
            shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True, exist_ok=True)
        (self._partial / INDEX).unlink(missing_ok=True)
        wanted: dict[int, list[str]] = {}
        for video_id, position in positions.items():
            wanted.setdefault(position // PART_ITEMS, []).append(video_id)
        present = {_number(path) for path in self._partial.glob("part-*.h5")}
        for number in sorted(present | wanted.keys()):
            self._trim(number, wanted.get(number, []))

    def put(self, video_id: str, position: int, array: np.ndarray) -> None:
        """Add the array of the video at `position`. It is durable after the next `flush`."""
        assert not self._is_renamed, "the cache was complete"
        number = position // PART_ITEMS
        if self._part is None or self._part.number != number:
            self.flush()
            self._part = self._continue(number)
        self._part.add(video_id, array)

    def flush(self) -> None:
        """Finish the part at hand: it is checked and renamed."""
        if self._part is not None:
            part, self._part = self._part, None
            part.finish()

    def finish(self) -> dict:
        """Write the index, give the folder its name, return totals: videos, rows, bytes.
        Idempotent.
        """
        if self._partial.exists():
            self.flush()
            self._write_index()
            shutil.rmtree(self.folder, ignore_errors=True)
            self._partial.rename(self.folder)
            sync_folder(self.folder.parent)
        cache = TensorCache.open(self.folder)
        shapes = [cache.shape(i) for i in cache.ids]
        size = sum(int(np.prod(s)) for s in shapes) * cache.dtype.itemsize if shapes else 0
        return {"videos": len(cache), "rows": sum(s[0] for s in shapes), "bytes": size}

    def close(self) -> None:
        """Drop what was not flushed."""
        if self._part is not None:
            self._part.drop()
            self._part = None

    def _expect_finished(self, ids: list[str]) -> None:
        """No partial folder: it was renamed just before the run was killed."""
        if not self.folder.exists() or TensorCache.open(self.folder).ids != ids:
            raise DataError(
                "the cache lacks videos that the journal lists",
                where=self._partial,
                fix=_START_AGAIN,
            )

    def _path(self, number: int) -> Path:
        return self._partial / f"part-{number:05d}.h5"

    def _trim(self, number: int, wanted: list[str]) -> None:
        """Remove from a part what the journal does not know."""
        path = self._path(number)
        held = _contents(path)[1] if path.exists() else {}
        if lost := [i for i in wanted if i not in held]:
            raise DataError(
                f"{len(lost):,} videos are not in it: {lost[0]}", where=path, fix=_START_AGAIN
            )
        if not wanted:
            path.unlink(missing_ok=True)
        elif list(held) != wanted:
            part = _Part(path, number, self._kind)
            part.copy(path, wanted)
            part.finish()

    def _continue(self, number: int) -> "_Part":
        """Return a part to write; what an earlier flush put into it comes first."""
        path = self._path(number)
        part = _Part(path, number, self._kind)
        if path.exists():
            part.copy(path, list(_contents(path)[1]))
        return part

    def _write_index(self) -> None:
        parts, videos, dtypes = [], [], set()
        for path in sorted(self._partial.glob("part-*.h5")):
            dtype, entries = _contents(path)
            dtypes.add(dtype)
            videos += [
                [i, len(parts), e.offset, list(e.shape), e.crc32] for i, e in entries.items()
            ]
            parts.append([path.name, path.stat().st_size])
        assert len(dtypes) <= 1, dtypes
        fields = {
            "schema": SCHEMA,
            "kind": self._kind,
            "dtype": next(iter(dtypes), "uint8"),
            "attrs": self._attrs,
        }
        atomic_write(self._partial / INDEX, canonical(fields | {"parts": parts, "videos": videos}))


class _Part:
    """One HDF5 file under its temporary name."""

    def __init__(self, path: Path, number: int, kind: Kind):
        import h5py

        self.number, self._path = number, path
        self._temporary = path.with_name(TEMPORARY + path.name)
        self._file = h5py.File(
            self._temporary, "w", locking=False, alignment_threshold=_PAGE, alignment_interval=_PAGE
        )
        self._file.attrs["schema"], self._file.attrs["kind"] = np.bytes_(SCHEMA), np.bytes_(kind)
        self._written: list[tuple[str, tuple[int, ...], int]] = []
        self._reserved = _ROOM_FOR_INDEX
        try:
            self._reserve(0)
        except OSError:
            self.drop()
            raise

    def add(self, video_id: str, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array)
        crc = zlib.crc32(array)
        self._reserve(array.nbytes + _PAGE)
        try:
            # no times and no names of variable length: equal arrays give equal bytes
            dataset = self._file.create_dataset(
                f"{len(self._written):02d}", data=array, track_times=False
            )
            dataset.attrs["id"] = np.bytes_(video_id.encode("utf-8", "surrogateescape"))
            dataset.attrs["crc32"] = np.uint32(crc)
        except (OSError, RuntimeError, ValueError) as error:
            raise _as_os_error(error, self._temporary) from error
        self._written.append((video_id, array.shape, crc))

    def _reserve(self, size: int) -> None:
        """Have the disk set the space aside before HDF5 writes: refused in the middle of a write,
        it crashes later on.

        OSError when the disk is full or the file would pass a limit.
        """
        self._reserved += size
        with self._temporary.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, self._reserved)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self._temporary)) from error

    def copy(self, path: Path, ids: list[str]) -> None:
        """Take over the arrays of `ids` from a finished part."""
        dtype, entries = _contents(path)
        for video_id in ids:
            entry = entries[video_id]
            self.add(video_id, np.memmap(path, dtype, "r", entry.offset, entry.shape))

    def finish(self) -> None:
        """Close it, read it back, fsync and rename it."""
        try:
            self._file.flush()
            size = self._file.id.get_filesize()
            self._file.close()
        except (OSError, RuntimeError) as error:
            raise _as_os_error(error, self._temporary) from error
        os.truncate(self._temporary, size)  # what was set aside and not needed
        dtype, entries = _contents(self._temporary)
        for video_id, shape, crc in self._written:
            entry = entries[video_id]
            array = np.memmap(self._temporary, dtype, "r", entry.offset, entry.shape)
            if entry.shape != shape or zlib.crc32(array) != crc:
                raise OSError(
                    errno.EIO,
                    f"the array of {video_id} reads back differently",
                    str(self._temporary),
                )
        commit_file(self._temporary, self._path)

    def drop(self) -> None:
        with contextlib.suppress(
            OSError, RuntimeError
        ):  # after a refused write HDF5 cannot even close the file
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def _contents(path: Path) -> tuple[str, dict[str, Entry]]:
    """dtype and entries (part number 0) of a part, in order. DataError if it is none, or is cut
    short.
    """
    import h5py

    entries, dtypes, size = {}, set(), path.stat().st_size
    try:
        with h5py.File(path, "r", locking=False) as file:
            for name in sorted(file):
                dataset = file[name]
                video_id = bytes(dataset.attrs["id"]).decode("utf-8", "surrogateescape")
                offset = dataset.id.get_offset()
                entries[video_id] = Entry(0, offset, dataset.shape, int(dataset.attrs["crc32"]))
                dtypes.add(str(dataset.dtype))
                if offset is None or offset + dataset.nbytes > size:
                    raise ValueError(f"the array of {video_id} is not whole")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(
            f"this part of a tensor cache is damaged: {error}", where=path, fix=_START_AGAIN
        ) from error
    if len(dtypes) != 1:
        raise DataError(f"its arrays have the types {sorted(dtypes)}", where=path, fix=_START_AGAIN)
    return dtypes.pop(), entries


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("part-"))


def _as_os_error(error: Exception, path: Path) -> OSError:
    """HDF5 hides the number of a system error in its text."""
    for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS):
        if f"errno = {number}," in str(error) or getattr(error, "errno", None) == number:
            return OSError(number, str(error), str(path))
    return OSError(errno.EIO, str(error), str(path))
