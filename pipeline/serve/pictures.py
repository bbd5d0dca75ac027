"""Pictures of moments, made when they are asked for and kept in memory for a while."""

import threading
from collections import OrderedDict
from pathlib import Path

from pipeline.search.page import draw_moment

_KEPT_BYTES = 64 << 20


class Stills:
    """JPEGs by file, its time stamp and the moment."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple, bytes | None] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._decoding = threading.Semaphore(2)

    def of(self, path: Path, start: float, end: float | None) -> bytes | None:
        """Return a JPEG of the middle of a moment, or None if there is none to show."""
        try:
            key = (path, path.stat().st_mtime_ns, start, end)
        except OSError:
            return None
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._decoding:
            made = draw_moment(path, start, end)
        with self._lock:
            self._kept[key] = made
            self._bytes += len(made or b"")
            while self._bytes > _KEPT_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1] or b"")
        return made
