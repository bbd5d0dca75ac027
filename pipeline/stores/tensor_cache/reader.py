"""TensorCache: model-ready arrays of many videos, mapped from contiguous, uncompressed HDF5 files.

A folder: `part-00000.h5` ... with the arrays of up to 64 videos each, every array one contiguous
dataset (that starts on a page if it is larger than one), and `index.json` with part, offset, shape
and CRC-32 per video. HDF5 is how the files are written and what other tools can read; the hot path
needs only the index and a memory map.
"""

import json
import math
import mmap
import os
import stat
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pipeline.errors import DataError

Kind = Literal["frames", "features", "tokens"]

INDEX, SCHEMA = "index.json", "tvrkit-tensors-1"
DTYPES = {"uint8": np.uint8, "float32": np.float32, "float16": np.float16, "int64": np.int64}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MAPS = 256  # open at once: each holds a file descriptor
_REBUILD = "Build the cache again: python cli.py tensors --force ..."


class Entry(NamedTuple):
    """Where the array of a video lies: part number, byte offset, shape, and its CRC-32."""

    part: int
    offset: int
    shape: tuple[int, ...]
    crc32: int


class TensorCache:
    """Read-only, picklable, safe after fork and spawn and from several threads. Maps a part when it
    is first needed.
    """

    def __init__(self, path: Path):
        self.path = _locate(Path(path))
        fields = _read_index(self.path / INDEX)
        self.kind: Kind = fields["kind"]
        self.attrs: dict = fields["attrs"]
        self.dtype = np.dtype(DTYPES[fields["dtype"]])
        self._parts: list[tuple[str, int]] = [(name, size) for name, size in fields["parts"]]
        self._entries = {
            video_id: Entry(part, offset, tuple(shape), crc)
            for video_id, part, offset, shape, crc in fields["videos"]
        }
        self._maps: OrderedDict[int, mmap.mmap] = OrderedDict()
        self._check()

    @classmethod
    def open(cls, path: Path | str) -> "TensorCache":
        """Return the cache in folder `path`, or the only one in a sub folder of it.

        Raises DataError if a file is missing, cut short, or disagrees with the index.
        """
        return cls(Path(path))

    @classmethod
    def open_kind(cls, path: Path, kind: Literal["frames", "features"]) -> "TensorCache":
        """Return the cache of that kind in the folder of a tensors step, or the one in `path`
        itself.

        Raises DataError as `open`, and for a cache of something else or without videos.
        """
        found = cls(path / kind if (path / kind).is_dir() else path)
        if found.kind == kind and len(found):
            return found
        holds = f"holds {found.kind}, not {kind}" if len(found) else "is empty"
        raise DataError(
            f"this tensor cache {holds}",
            where=found.path,
            fix=f"Add `{kind}: {{}}` to the tensors step and run it again.",
        )

    def expect_size(self, size: int) -> None:
        """DataError unless its frames are squares of that many pixels."""
        found = self.shape(self.ids[0])[1:]
        if found != (size, size, 3):
            raise DataError(
                f"its frames are {found[1]}x{found[0]} pixels, the model reads {size}x{size}",
                where=self.path,
                fix=(
                    f"Set frames: {{size: {size}}} of the tensors step, or another backbone in the"
                    " recipe."
                ),
            )

    def __reduce__(self):
        return TensorCache, (self.path,)

    @cached_property
    def ids(self) -> list[str]:
        """In the order in which the cache was built."""
        return list(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._entries

    def shape(self, video_id: str) -> tuple[int, ...]:
        """Shape of the array of a video: (T, S, S, 3) for frames, (T, F) for features. KeyError
        names the cache.
        """
        return self._entry(video_id).shape

    def __getitem__(self, video_id: str) -> np.ndarray:
        """Return the array of a video, a read-only view of the map (no copy). KeyError names the
        cache.
        """
        entry = self._entry(video_id)
        flat = np.frombuffer(
            self._map(entry.part), self.dtype, math.prod(entry.shape), entry.offset
        )
        return flat.reshape(entry.shape)

    def gather(
        self, ids: Sequence[str], frame_index: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return rows frame_index[b] of video ids[b]: (B, T, ...), copied straight into `out` when
        it is given.

        frame_index: integers (B, T), repeats allowed. IndexError if one is out of range; ValueError
        if the videos, or `out`, do not have one shape.
        """
        frame_index = np.asarray(frame_index, dtype=np.intp)
        if out is None:
            out = np.empty((*frame_index.shape, *self.shape(ids[0])[1:]), self.dtype)
        for slot, rows, video_id in zip(out, frame_index, ids, strict=True):
            array = self[video_id]
            if rows.size and not 0 <= rows.min() <= rows.max() < len(array):
                raise IndexError(
                    f"{video_id} has {len(array)} frames, asked for {rows.min()} to {rows.max()}"
                )
            np.take(array, rows, axis=0, out=slot, mode="clip")  # "raise" would copy once more
        return out

    def find_changed(self) -> list[str]:
        """Return ids of the videos whose array no longer has its CRC-32."""
        return [i for i, entry in self._entries.items() if zlib.crc32(self[i]) != entry.crc32]

    def check(self) -> None:
        """Compare every array with its CRC-32. DataError lists the videos that changed."""
        changed = self.find_changed()
        if changed:
            names = ", ".join(changed[:3])
            raise DataError(
                f"{len(changed):,} arrays changed: {names}", where=self.path, fix=_REBUILD
            )

    def _entry(self, video_id: str) -> Entry:
        try:
            return self._entries[video_id]
        except KeyError:
            raise KeyError(
                f"{self.path}: there is no video {video_id!r} ({len(self):,} videos)"
            ) from None

    def _map(self, part: int) -> mmap.mmap:
        found = self._maps.get(part)
        if found is None:
            found = self._maps[part] = self._open_map(part)
            if len(self._maps) > _MAPS:
                self._maps.popitem(last=False)  # views keep theirs alive
        if (
            found.size() != self._parts[part][1]
        ):  # asks the file: a map beyond its end would end the process
            raise self._wrong(part, "the file changed its size while it was open")
        return found

    def _open_map(self, part: int) -> mmap.mmap:
        name, size = self._parts[part]
        with (self.path / name).open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                raise self._wrong(part, "the file changed its size")
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)

    def _check(self) -> None:
        for part, (name, size) in enumerate(self._parts):
            if found := _fault(self.path / name, size):
                raise self._wrong(part, found)
        width = self.dtype.itemsize
        for video_id, entry in self._entries.items():
            end = entry.offset + width * math.prod(entry.shape)
            if (
                entry.offset < 0
                or min(entry.shape) < 1
                or end > self._parts[entry.part][1]
                or entry.offset % width
            ):
                raise self._wrong(
                    entry.part, f"the array of {video_id} does not lie within the file"
                )

    def _wrong(self, part: int, what: str) -> DataError:
        return DataError(what, where=self.path / self._parts[part][0], fix=_REBUILD)


def _locate(path: Path) -> Path:
    if (path / INDEX).exists():
        return path
    found = sorted(
        p.parent for p in path.glob(f"*/{INDEX}") if not p.parent.name.endswith(".partial")
    )
    if len(found) == 1:
        return found[0]
    what = "there is no tensor cache in this folder"
    if found:
        what = f"there are several tensor caches in this folder: {', '.join(p.name for p in found)}"
    elif any(path.glob("*.partial")):
        what = "this tensor cache is not finished"
    raise DataError(
        what, where=path, fix="Run the tensors step to its end, or give the folder of one cache."
    )


def _read_index(path: Path) -> dict:
    try:
        fields = json.loads(path.read_bytes())
        sound = (
            fields["schema"] == SCHEMA
            and fields["dtype"] in DTYPES
            and isinstance(fields["attrs"], dict)
        )
        parts = fields["parts"]
        sound = sound and all(_is_plain_name(name) and size > 0 for name, size in parts)
        for video_id, part, offset, shape, crc in fields["videos"]:
            numbers = (part, offset, crc, *shape)
            sound = sound and isinstance(video_id, str) and all(type(n) is int for n in numbers)
            sound = sound and 0 <= part < len(parts) and len(shape) > 0
    except OSError as error:
        raise DataError(f"{error.strerror}", where=path, fix=_REBUILD) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"it is not the index of a tensor cache ({error!r})", where=path, fix=_REBUILD
        ) from None
    if not sound:
        raise DataError("it is not the index of a tensor cache", where=path, fix=_REBUILD)
    return fields


def _is_plain_name(name: str) -> bool:
    return isinstance(name, str) and Path(name).name == name


def _fault(path: Path, size: int) -> str:
    """Return what is wrong with a part, or ""."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return "this is not a regular file"
        if found.st_size != size:
            return f"the file has {found.st_size:,} bytes, the cache wrote {size:,}"
        with path.open("rb") as file:
            return "" if file.read(len(_HDF5)) == _HDF5 else "this is not an HDF5 file"
    except OSError as error:
        return str(error.strerror)
