"""BigFile: float32 rows with ids, the feature format of the Dual Encoding family, read through a
memory map.

A folder: `feature.bin` (rows x dims float32, little endian, no header), `shape.txt` ("rows dims"),
`id.txt` (ids in row order) and, for frames, `video2frames.txt`. Stores that we write may add
`encoded_ids.json` {id as stored: id}, for ids that the format cannot express (white space,
characters outside ISO-8859-1). Everything is checked before it is used.
Source: docs/specs/dual-encoding.md, section 9.1; danieljf24/hybrid_space: util/txt2bin.py;
dongYoun2/dual-encoding-system:
utils/bigfile.py, which opens the file once per frame and runs `video2frames.txt` through `eval`.
"""

import contextlib
import json
import mmap
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.core.adopted import resolve
from pipeline.errors import DataError
from pipeline.stores.big_file.frame_lists import parse_frame_lists

FORMAT = "bigfile"
ROWS = "feature.bin"
IDS = "id.txt"
SHAPE = "shape.txt"
VIDEOS = "video2frames.txt"
ENCODED = "encoded_ids.json"
_SHAPE = re.compile(rb"\s*(\d{1,15})\s+(\d{1,15})\s*")
_BYTES_PER_ID = 4096  # no id is longer; bounds what a hostile index file can make us read
_SHOWN = 100


class BigFile:
    """A read-only store of float32 rows. Opens cheaply, maps the rows on first use, pickles as its
    path.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._folder = resolve(self.path, FORMAT)
        self.rows, self.dim = _read_shape(self._folder)
        _check_size(self._folder, self.rows, self.dim)
        names = _read_encoded(self._folder / ENCODED)
        self.ids: list[str] = [names.get(i, i) for i in _read_ids(self._folder, self.rows)]
        self._names = names
        self._row = {item_id: row for row, item_id in enumerate(self.ids)}
        _check_unique(self._folder, self.ids, self._row)

    @classmethod
    def open(cls, path: Path) -> "BigFile":
        """Return the store in the folder `path` (or the one that the adopt step at `path` points
        to).

        Raises DataError if a file is missing, cut short, or disagrees with the others.
        """
        return cls(path)

    def __reduce__(self):
        return BigFile, (self.path,)

    def __len__(self) -> int:
        return self.rows

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._row

    def read(self, ids: Sequence[str]) -> np.ndarray:
        """Return rows of `ids` in the order asked, float32 (n, dim), yours to write. KeyError names
        all that are missing.
        """
        missing = [i for i in ids if i not in self._row]
        if missing:
            raise KeyError(
                f"{len(missing)} of {len(ids)} ids are not in {self.path}: {_some(missing)}"
            )
        rows = np.fromiter((self._row[i] for i in ids), np.int64, len(ids))
        return np.array(self._matrix()[_span(rows)], dtype=np.float32)

    def read_video(self, video_id: str) -> np.ndarray:
        """Return the rows of a video in playing order, float32 (T, dim).

        A read-only view of the map where the rows are consecutive (no copy), else a copy. KeyError
        names the store.
        """
        span = self._spans.get(video_id)
        if span is None:
            raise KeyError(f"no video {video_id!r} in {self.path} ({len(self._spans):,} videos)")
        return self._matrix()[span]

    def block(self, start: int, stop: int) -> np.ndarray:
        """Return rows start to stop in file order, float32, a read-only view."""
        return self._matrix()[start:stop]

    @property
    def has_frames(self) -> bool:
        """The store says which frames belong to which video."""
        return (self._folder / VIDEOS).exists()

    @cached_property
    def videos(self) -> dict[str, list[str]]:
        """{video id: ids of its rows in playing order}. Without `video2frames.txt` every row is a
        video of its own.
        """
        if not self.has_frames:
            return {item_id: [item_id] for item_id in self.ids}
        videos = _read_videos(self._folder / VIDEOS, self.rows)
        videos = {
            self._names.get(v, v): [self._names.get(f, f) for f in frames]
            for v, frames in videos.items()
        }
        unknown = [f for frames in videos.values() for f in frames if f not in self._row]
        if unknown:
            raise _wrong(
                self._folder / VIDEOS,
                f"{len(unknown):,} frames have no row in {IDS}: {_some(unknown, 3)}",
            )
        return videos

    @property
    def unlisted(self) -> list[str]:
        """Ids of rows that belong to no video."""
        listed = {frame for frames in self.videos.values() for frame in frames}
        return [i for i in self.ids if i not in listed]

    @cached_property
    def _spans(self) -> dict[str, slice | np.ndarray]:
        if not self.has_frames:
            return {item_id: slice(row, row + 1) for item_id, row in self._row.items()}
        row = self._row
        return {v: _span(np.array([row[f] for f in frames])) for v, frames in self.videos.items()}

    @cached_property
    def _map(self) -> tuple[BinaryIO, np.ndarray]:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context((self._folder / ROWS).open("rb"))
            view = mmap.mmap(file.fileno(), self.rows * self.dim * 4, access=mmap.ACCESS_READ)
            stack.pop_all()
        return file, np.frombuffer(view, dtype="<f4").reshape(self.rows, self.dim)

    def _matrix(self) -> np.ndarray:
        if not self.rows:
            return np.empty((0, self.dim), np.float32)
        file, matrix = self._map
        # a map of a file that has become shorter ends the process with SIGBUS; asking costs half a
        # microsecond
        if os.fstat(file.fileno()).st_size != matrix.nbytes:
            raise _wrong(self._folder / ROWS, "the file changed its size while it was open")
        return matrix


def file_names(folder: Path) -> list[str]:
    """Return the files a BigFile folder consists of (not what else may lie there), in a fixed
    order.
    """
    return [name for name in (ROWS, IDS, SHAPE, VIDEOS, ENCODED) if (folder / name).exists()]


def _span(rows: np.ndarray) -> slice | np.ndarray:
    """`rows` as one slice if they are consecutive."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _read_shape(folder: Path) -> tuple[int, int]:
    first = _bytes(folder / SHAPE, 4096, cut=True).split(b"\n")[
        0
    ]  # what follows the first line is ignored, as published
    match = _SHAPE.fullmatch(first)
    if match is None:
        raise _wrong(folder / SHAPE, f"expected two integers, rows and dims, found {first[:40]!r}")
    rows, dim = int(match[1]), int(match[2])
    if dim == 0:
        raise _wrong(folder / SHAPE, f"expected at least one value per row, found {rows} x {dim}")
    return rows, dim


def _check_size(folder: Path, rows: int, dim: int) -> None:
    size = _regular(folder / ROWS)
    if size != rows * dim * 4:
        raise _wrong(
            folder / ROWS,
            f"the file has {size:,} bytes, but {rows:,} rows of {dim:,} float32 need"
            f" {rows * dim * 4:,}",
        )


def _read_ids(folder: Path, rows: int) -> list[str]:
    # split the raw bytes first: decoded, 0x85 and 0xA0 would count as white space too
    ids = [i.decode("iso-8859-1") for i in _bytes(folder / IDS, (rows + 1) * _BYTES_PER_ID).split()]
    if len(ids) != rows:
        raise _wrong(folder / IDS, f"{len(ids):,} ids for {rows:,} rows")
    return ids


def _check_unique(folder: Path, ids: list[str], row: dict[str, int]) -> None:
    if len(row) == len(ids):
        return
    repeated = sorted({item_id for n, item_id in enumerate(ids) if row[item_id] != n})
    raise _wrong(
        folder / IDS, f"{len(repeated):,} ids stand there more than once: {_some(repeated, 3)}"
    )


def _read_videos(file: Path, rows: int) -> dict[str, list[str]]:
    data = _bytes(file, (rows + 1) * 2 * _BYTES_PER_ID)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("iso-8859-1")
    try:
        videos = parse_frame_lists(text)
    except ValueError as error:
        raise _wrong(file, f"not a list of frames per video: {error}") from error
    empty = [video_id for video_id, frames in videos.items() if not frames]
    if empty:
        raise _wrong(file, f"{len(empty):,} videos have no frames: {_some(empty, 3)}")
    return videos


def _read_encoded(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    try:
        names = json.loads(_bytes(file, 1 << 30))
    except (ValueError, RecursionError) as error:
        raise _wrong(file, f"not JSON: {error}") from error
    if not isinstance(names, dict) or any(not isinstance(v, str) for v in names.values()):
        raise _wrong(file, "expected an object of strings")
    return names


def _bytes(file: Path, largest: int, cut: bool = False) -> bytes:
    size = _regular(file)
    if size > largest and not cut:
        raise _wrong(file, f"{size:,} bytes are too many for what {SHAPE} says")
    try:
        with file.open("rb") as opened:
            return opened.read(largest)
    except OSError as error:
        raise _wrong(file, f"cannot be read: {error.strerror}") from error


def _regular(file: Path) -> int:
    """Size of a regular file in bytes (a pipe would block, a device never ends)."""
    try:
        if file.is_file():
            return file.stat().st_size
        what = "this is not a regular file" if file.exists() else "there is no such file"
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
    raise DataError(what, where=file, fix=f"A BigFile folder holds {ROWS}, {IDS} and {SHAPE}.")


def _wrong(file: Path, what: str) -> DataError:
    return DataError(
        what, where=file, fix="The copy is incomplete or damaged: fetch or build the folder again."
    )


def _some(ids: Sequence[str], count: int = _SHOWN) -> str:
    more = f" and {len(ids) - count:,} more" if len(ids) > count else ""
    return ", ".join(repr(i) for i in ids[:count]) + more
