"""One run per folder: flock, so a killed process frees it at once; the holder is named in the
error.
"""

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from pipeline.core.files import open_no_link
from pipeline.errors import StateError


class Lock:
    """Context manager that holds `<folder>/lock`. StateError (exit 5) names host, pid and start of
    the holder.
    """

    def __init__(self, folder: Path):
        self._path = folder / "lock"
        self._fd = -1

    def __enter__(self) -> "Lock":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = open_no_link(self._path, os.O_RDWR)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            os.close(self._fd)
            raise StateError(
                f"another run holds this folder: {holder}",
                where=self._path.parent.parent,
                fix="Wait for it to end, or stop it; then run the same command again.",
            ) from None
        os.ftruncate(self._fd, 0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        os.write(
            self._fd,
            json.dumps(
                {"host": socket.gethostname(), "pid": os.getpid(), "start": started}
            ).encode(),
        )
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def _holder(self) -> str:
        try:
            facts = json.loads(os.pread(self._fd, 4096, 0))
            return f"process {facts['pid']} on {facts['host']}, since {facts['start']}"
        except (ValueError, KeyError):
            return "a process that has just started"
