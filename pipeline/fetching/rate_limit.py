"""One rate for the downloads of all worker processes together: they take turns through a small
locked file.
"""

import fcntl
import os
import struct
import time
from pathlib import Path


class RateLimit:
    """At most `bytes_per_second` over all processes that name the same file; None: no limit.

    The file holds the time (of the machine's monotonic clock) at which the next bytes may come.
    """

    def __init__(self, path: Path, bytes_per_second: float | None):
        self._path, self._rate = path, bytes_per_second

    def wait_for(self, n_bytes: int) -> None:
        """Sleep until these bytes are within the rate."""
        if self._rate is None:
            return
        seconds = n_bytes / self._rate
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            now, data = time.monotonic(), os.pread(fd, 8, 0)
            turn = struct.unpack("<d", data)[0] if len(data) == 8 else now
            # a file from before the machine started anew names a time far ahead
            turn = now if turn > now + 60 + seconds else max(turn, now)
            os.pwrite(fd, struct.pack("<d", turn + seconds), 0)
        finally:
            os.close(fd)
        time.sleep(max(0.0, turn + seconds - now))
