"""Payload files of a frame store, placement "pack": values one after the other in `frames-<k>.bin`,
up to 4 GiB each.

For stores larger than memory: one pread takes 0.6 ms where the map takes 4 to 15
(docs/specs/preprocessing.md, section 5.5).
"""

import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

from pipeline.core.files import commit_file
from pipeline.errors import DataError
from pipeline.stores.frame_store.opened_store import PACKED, pack_name

LARGEST_SHARD = 4 << 30
START_AGAIN = "Build it anew: the same command with --force (in a pipeline: --force STEP)."


class PackWriter:
    """Appends values; `open` cuts off what no entry of the LMDB file refers to (the tail a kill
    left).
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._sizes: list[int] = []
        self._file: int | None = None

    def open(self, entries: Iterable[bytes], is_final: bool = False) -> None:
        """Bring the files to the end of what `entries` (as `append` gives them) refer to.

        is_final: all was written and perhaps renamed: nothing is cut and nothing can be appended.
        """
        self._sizes = []
        for shard, offset, length, _ in map(PACKED.unpack, entries):
            self._sizes += [0] * (shard + 1 - len(self._sizes))
            self._sizes[shard] = max(self._sizes[shard], offset + length)
        if is_final:
            return
        for shard, size in enumerate(self._sizes):
            path = self._partial(shard)
            found = path.stat().st_size if path.exists() else 0
            if found < size:
                raise DataError(
                    f"the payload has {found:,} bytes, its index needs {size:,}",
                    where=path,
                    fix=START_AGAIN,
                )
            os.truncate(path, size)
        for path in _shards(self._folder, ".partial", len(self._sizes)):
            path.unlink()

    def append(self, value: bytes) -> bytes:
        """Write a value; its entry for the LMDB file: shard, offset, length, CRC-32."""
        if not self._sizes or self._sizes[-1] + len(value) > LARGEST_SHARD:
            self.flush()
            self.close()
            self._sizes.append(0)
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(self._partial(len(self._sizes) - 1), flags, 0o666)
        offset = self._sizes[-1]
        view = memoryview(value)
        while view:
            view = view[os.pwrite(self._file, view, offset + len(value) - len(view)) :]
        self._sizes[-1] += len(value)
        return PACKED.pack(len(self._sizes) - 1, offset, len(value), zlib.crc32(value))

    def flush(self) -> None:
        if self._file is not None:
            os.fsync(self._file)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def sizes(self) -> list[int]:
        """Bytes of each payload file."""
        return list(self._sizes)

    def rename(self) -> int:
        """Give the files their final names (those that do not have them yet); how many there
        are.
        """
        self.close()
        for shard in range(len(self._sizes)):
            if self._partial(shard).exists():
                commit_file(self._partial(shard), self._folder / pack_name(shard))
        return len(self._sizes)

    def _partial(self, shard: int) -> Path:
        return self._folder / f"{pack_name(shard)}.partial"

    @staticmethod
    def remove_beyond(folder: Path, count: int) -> None:
        """Remove payload files of an earlier store that had more of them."""
        for path in _shards(folder, "", count):
            path.unlink()

    @staticmethod
    def remove_partial(folder: Path) -> None:
        for path in _shards(folder, ".partial", 0):
            path.unlink()


def pack_files(folder: Path) -> list[Path]:
    """Return the finished payload files of a store, in order."""
    return sorted(_shards(folder, "", 0), key=lambda path: int(path.stem.rpartition("-")[2]))


def follows(before: tuple[int, int], entry: bytes) -> tuple[int, int] | None:
    """Return where the value of `entry` ends, (file, offset), if it begins where the one `before`
    ended, or None if others lie between.
    """
    shard, offset, length, _ = PACKED.unpack(entry)
    begins_file = (shard, offset) == (before[0] + 1, 0)
    return (shard, offset + length) if begins_file or (shard, offset) == before else None


def _shards(folder: Path, suffix: str, first: int) -> list[Path]:
    pattern = re.compile(r"frames-(\d+)\.bin" + re.escape(suffix))
    names = sorted(path.name for path in folder.glob("frames-*.bin*"))
    matches = [found for name in names if (found := pattern.fullmatch(name))]
    return [folder / found.string for found in matches if int(found[1]) >= first]
