"""Errors a user can act on: what is wrong, where, and what to do next; each class has its exit
code.

Exit codes: 0 done, 1 internal error or failed comparison, 2 usage or
configuration, 3 too many failed items, 4 missing or unusable input, 5 locked, 6 the system refused,
130 interrupted.
"""

import contextlib
import errno
import shutil
from pathlib import Path

from pipeline.visible import one_line


class TvrError(Exception):
    """An error with its three parts. `str()` gives "where: what" and, on a second line, what to
    do.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: object = "", fix: str = ""):
        super().__init__(what)
        self.what, self.where, self.fix = what, str(where), fix

    def __str__(self) -> str:
        head = f"{one_line(self.where)}: {self.what}" if self.where else self.what
        return f"{head}\n    {self.fix}" if self.fix else head

    def __reduce__(self):
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(kind: type[TvrError], what: str, where: str, fix: str) -> TvrError:
    return kind(what, where=where, fix=fix)


class ComparisonFailed(TvrError):
    """A comparison the user asked for (`parity`, `check`) found differences."""

    exit_code = 1


class ConfigError(TvrError):
    """A command line, a YAML file or an option is wrong."""

    exit_code = 2


class TooManyFailures(TvrError):
    """A step reached its last item, and more of them failed than `max_failures` allows."""

    exit_code = 3


class DataError(TvrError):
    """An input is missing, damaged, of another kind, or hostile."""

    exit_code = 4


class StateError(TvrError):
    """Another run holds the folder."""

    exit_code = 5


class SystemRefused(TvrError):
    """The operating system refused: disk full, read-only, no permission."""

    exit_code = 6


class Interrupted(TvrError):
    """Ctrl-C or SIGTERM; the state on disk is consistent and the same command continues."""

    exit_code = 130


REASONS = frozenset(
    "empty unreadable no_video_stream no_frames truncated decode_errors bad_timestamps too_large"
    " extreme_aspect too_long forbidden_format io_error timeout worker_died out_of_memory"
    " not_finite bad_value missing internal".split()
)


class ItemError(Exception):
    """One item cannot be used: it is set aside under `reason` (one of REASONS) and the step goes
    on.
    """

    def __init__(self, reason: str, message: str):
        assert reason in REASONS, reason
        super().__init__(reason, message)
        self.reason, self.message = reason, message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


_REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "the file-size limit is reached",
}


# beyond those: what a retry may mend, and what no other path than this error's own can explain
_FAILURES = {
    errno.EIO: "input/output error: the disk or its connection failed",
    errno.EMFILE: "too many open files for this process (ulimit -n)",
    errno.ENFILE: "too many open files on this machine",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EISDIR: "a folder stands where a file is needed",
    errno.EEXIST: "it exists already, as something else",
    errno.ELOOP: "its links go in a circle",
    errno.ENOENT: "it is not there (any more)",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ESTALE: "the network file system has lost it (stale handle)",
    errno.ENOTCONN: "the network file system is not connected",
    errno.ENODEV: "its device is gone",
    errno.ENXIO: "its device is gone",
    errno.ETXTBSY: "it is in use",
    errno.EBUSY: "it is in use",
    errno.ENOMEM: "the system has no memory left",
    errno.EAGAIN: "the system has no process or memory left for it",
    errno.EINVAL: "the file system does not take it",
}


def refusal(error: OSError, path: object = "") -> SystemRefused | None:
    """Return the SystemRefused for an OSError that no retry can mend (disk full, quota, read-only,
    size limit), else None.
    """
    if error.errno not in _REFUSALS:
        return None
    place, free = Path(path or error.filename or "."), ""
    while not place.exists() and place != place.parent:  # temporary files are gone by now
        place = place.parent
    if error.errno == errno.ENOSPC:
        with contextlib.suppress(OSError):
            free = f": {shutil.disk_usage(place).free:,} bytes are free"
    return SystemRefused(
        _REFUSALS[error.errno] + free,
        where=place,
        fix=(
            "Free space or choose another folder, then run the same command again: finished items"
            " are kept."
        ),
    )


def system_error(error: OSError, path: object = "") -> SystemRefused:
    """Return the SystemRefused for any OSError that nothing nearer to its cause has explained.

    path: what was worked on, said where the error itself names no file.
    """
    known = refusal(error, path)
    if known:
        return known
    what = _FAILURES.get(error.errno or 0) or error.strerror or type(error).__name__
    return SystemRefused(
        what,
        where=error.filename or path,
        fix=(
            "Mend that or choose another path, then run the same command again: finished items are"
            " kept."
        ),
    )
