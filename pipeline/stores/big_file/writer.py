"""Write a BigFile row by row so that a kill at any instant loses nothing that was journalled.

Rows go to `feature.bin.partial`, what they are to `rows.partial` (one JSON line per group). On
resume both are cut back to the groups that the journal knows. `finish` writes the index files and,
last, gives the rows their name.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from pipeline.core.files import atomic_write, sync_folder
from pipeline.errors import DataError, ItemError
from pipeline.stores.big_file.reader import ENCODED, IDS, ROWS, SHAPE, VIDEOS

PARTIAL = f"{ROWS}.partial"
GROUPS = "rows.partial"
_SYNC_BYTES = 64 << 20
# what id.txt cannot hold, what a reader that splits decoded text would split at, and % itself:
# names stay distinct
_ESCAPED = re.compile(r"[\x00-\x20\x7f-\xa0%]|[^\x00-\xff]")


class BigFileWriter:
    """Appends groups of rows (the frames of a video) to the BigFile in `folder`; one writer per
    folder.

    keep: names of the groups to keep from a run that was killed, which must be the first ones;
    none: start afresh. Raises DataError if the partial files hold less than that.
    """

    def __init__(self, folder: Path, dim: int, keep: Sequence[str] = ()):
        self.folder, self.dim = Path(folder), dim
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows = os.open(self.folder / PARTIAL, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._lines = os.open(self.folder / GROUPS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._ids: dict[str, None] = {}  # in row order
        self.videos: dict[str, list[str]] = {}
        self._unsynced = 0
        self._cut_back(keep)

    def __enter__(self) -> "BigFileWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def append(self, name: str, ids: Sequence[str], rows: np.ndarray) -> None:
        """Append `rows` (len(ids), dim), stored as float32, as the group `name`.

        Raises ItemError: not_finite for NaN or infinite values, bad_value for an id that is already
        stored. Then nothing was written: a group is stored whole or not at all.
        """
        with np.errstate(
            over="ignore"
        ):  # what does not fit into float32 becomes infinite, and is refused below
            rows = np.ascontiguousarray(rows, dtype="<f4")
        if rows.shape != (len(ids), self.dim):
            raise ValueError(f"{name}: rows of shape {rows.shape}, expected {(len(ids), self.dim)}")
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            first = ids[int(bad.argmax())]
            raise ItemError(
                "not_finite",
                f"{int(bad.sum())} of {len(ids)} rows hold NaN or infinite values, first {first!r}",
            )
        self._remember(name, ids)
        _write(self._rows, rows.data.cast("B") if rows.size else b"")
        _write(self._lines, json.dumps([name, list(ids)]).encode() + b"\n")
        self._unsynced += rows.nbytes
        if self._unsynced >= _SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """Make everything appended survive a power failure."""
        os.fdatasync(self._rows)
        os.fdatasync(self._lines)
        self._unsynced = 0

    def finish(self, videos: Mapping[str, Sequence[str]] | None = None) -> None:
        """Write the index files, rename the rows, close. videos: for `video2frames.txt`; None: no
        such file.
        """
        stored = {item_id: stored_id(item_id) for item_id in (*self._ids, *(videos or ()))}
        self._index(IDS, " ".join(stored[i] for i in self._ids).encode("iso-8859-1"))
        self._index(SHAPE, f"{len(self._ids)} {self.dim}".encode())
        lists = (
            {stored[v]: [stored[f] for f in frames] for v, frames in videos.items()}
            if videos is not None
            else None
        )
        # ascii() is str() of a dict of plain ids; other characters become escapes that any reader
        # understands
        self._index(VIDEOS, ascii(lists).encode() if lists is not None else None)
        encoded = {s: item_id for item_id, s in stored.items() if s != item_id}
        self._index(ENCODED, json.dumps(encoded, sort_keys=True).encode() if encoded else None)
        self.sync()
        (self.folder / PARTIAL).replace(self.folder / ROWS)
        (self.folder / GROUPS).unlink()
        sync_folder(self.folder)
        self.close()

    def close(self) -> None:
        """Release the files; what is not finished stays for the next run. Harmless twice."""
        for fd in (self._rows, self._lines):
            if fd >= 0:
                os.close(fd)
        self._rows = self._lines = -1

    def _index(self, name: str, data: bytes | None) -> None:
        if data is None:
            (self.folder / name).unlink(missing_ok=True)
            return
        atomic_write(self.folder / name, data)

    def _remember(self, name: str, ids: Sequence[str]) -> None:
        if "" in ids or len(set(ids)) < len(ids) or name in self.videos:
            raise ItemError(
                "bad_value",
                f"{name!r}: every row needs an id of its own, and every group a name of its own",
            )
        repeated = [i for i in ids if i in self._ids]
        if repeated:
            raise ItemError("bad_value", f"already stored: {', '.join(map(repr, repeated[:3]))}")
        self._ids.update(dict.fromkeys(ids))
        self.videos[name] = list(ids)

    def _cut_back(self, keep: Sequence[str]) -> None:
        length, known = 0, _groups(self.folder / GROUPS)
        for name in keep:
            group = next(known, None)
            if group is None or group[0] != name:
                raise self._lost(name)
            self._remember(name, group[1])
            length = group[2]
        size = len(self._ids) * self.dim * 4
        if os.fstat(self._rows).st_size < size:
            raise self._lost(keep[-1])
        os.ftruncate(self._rows, size)
        os.ftruncate(self._lines, length)
        os.lseek(self._rows, 0, os.SEEK_END)
        os.lseek(self._lines, 0, os.SEEK_END)

    def _lost(self, name: str) -> DataError:
        self.close()
        return DataError(
            f"the half-written store does not hold {name!r}, which the journal says is done",
            where=self.folder / PARTIAL,
            fix="Build it anew: the same command with --force (in a pipeline: --force STEP).",
        )


def stored_id(item_id: str) -> str:
    """`item_id` as id.txt can hold it: what it cannot express is percent-encoded (UTF-8), and so is
    % itself.
    """
    return _ESCAPED.sub(
        lambda match: quote(match[0].encode("utf-8", "surrogatepass"), safe=""), item_id
    )


def _groups(file: Path) -> Iterator[tuple[str, list[str], int]]:
    """Yield (name, ids, bytes up to its end) of each whole line; a torn last line ends the list."""
    end = 0
    with file.open("rb") as lines:
        for line in lines:
            end += len(line)
            try:
                name, ids = json.loads(line)
            except ValueError:
                return
            if not line.endswith(b"\n"):
                return
            yield name, ids, end


def _write(fd: int, data: Iterable[int]) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
