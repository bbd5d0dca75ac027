"""Open LMDB files for reading: checked byte by byte before they are mapped, one environment per
file and process.

LMDB trusts its pages: a truncated or altered file ends the process with SIGBUS. `lmdb.verify` walks
the pages with plain reads (20 ms for 430 MB of large values), so a file is only mapped once its
structure holds.
"""

import os
import stat
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

import lmdb
from lmdb.verify import VerifyError, verify

from pipeline.errors import DataError, SystemRefused

_REBUILD = "Build the store again, or give the path of an intact one."


@dataclass(frozen=True)
class Stamp:
    """Which bytes were checked: while it is the same, the file need not be checked again."""

    device: int
    inode: int
    size: int
    mtime_ns: int


def check(path: Path) -> Stamp:
    """Return the stamp of a structurally sound LMDB file. DataError says what is wrong with any
    other.
    """
    stamp = _stamp(path)
    try:
        faults = verify(str(path), subdir=False)
    except VerifyError as error:
        raise DataError(f"this is not an LMDB file ({error})", where=path, fix=_REBUILD) from None
    except OSError as error:
        raise DataError(
            f"it cannot be read: {error.strerror}", where=path, fix="Check its permissions."
        ) from None
    if faults:
        more = f" and {len(faults) - 1} more faults" if len(faults) > 1 else ""
        raise DataError(f"this LMDB file is damaged: {faults[0]}{more}", where=path, fix=_REBUILD)
    return stamp


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(
            f"{error.strerror}", where=path, fix="Give the path of a frame store."
        ) from None
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        what = "the file is empty" if stat.S_ISREG(found.st_mode) else "this is not a regular file"
        raise DataError(what, where=path, fix=_REBUILD)
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class Environment:
    """A read-only LMDB environment that everything in this process that reads the file shares."""

    def __init__(self, path: Path, stamp: Stamp):
        # read-ahead pays while the store fits in memory beside everything else; beyond, it reads 12
        # times too much
        readahead = stamp.size < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        self.stamp = stamp
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.lmdb = lmdb.open(
            str(path),
            subdir=False,
            readonly=True,
            lock=False,
            readahead=readahead,
            # not what the file asks for: that may be 8 TiB, and beyond its end lies SIGBUS
            map_size=stamp.size,
            max_readers=1,
        )

    def expect_whole(self, path: Path) -> None:
        """DataError if the file became shorter while it was open: its map would end the process.
        Costs 0.5 us.
        """
        if os.fstat(self._file).st_size < self.stamp.size:
            raise DataError("the file became shorter while it was open", where=path, fix=_REBUILD)

    def __del__(self) -> None:
        os.close(self._file)


class _OpenFiles:
    """The environments of this process. LMDB refuses to open a file twice in a process, and an
    environment must not be used after a fork: so there has to be one list per process, and a forked
    child starts a new one.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open: weakref.WeakValueDictionary[tuple[int, int], Environment] = (
            weakref.WeakValueDictionary()
        )

    def get(self, path: Path, checked: Stamp | None) -> Environment:
        if self._pid != os.getpid():
            for inherited in list(self._open.values()):
                inherited.lmdb.close()
            self._begin()
        with self._lock:
            stamp = _stamp(path)
            known = self._open.get((stamp.device, stamp.inode))
            if known is not None and known.stamp == stamp:
                return known
            if stamp != checked:
                check(path)
            try:
                opened = Environment(path, stamp)
            except lmdb.MemoryError as error:
                raise SystemRefused(
                    f"there is no room to map its {stamp.size:,} bytes into memory",
                    where=path,
                    fix="Raise the memory limit of workers (--memory 0 removes it).",
                ) from error
            except lmdb.Error as error:
                raise DataError(
                    f"LMDB cannot open it: {error}", where=path, fix=_REBUILD
                ) from error
            self._open[stamp.device, stamp.inode] = opened
            return opened


_open_files = _OpenFiles()


def open_shared(path: Path, checked: Stamp | None = None) -> Environment:
    """Return the environment of `path` in this process, opened when it is not yet. Keep it only as
    long as the process id.

    checked: the stamp of an earlier `check` (perhaps in another process); the file is checked again
    only if it differs.
    """
    return _open_files.get(path, checked)
