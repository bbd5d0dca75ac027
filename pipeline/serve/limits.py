"""How much a visitor may ask for: requests a minute by address, bytes of an upload."""

import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

_ADDRESSES = 10_000  # that are remembered


class TooMany(Exception):
    """More than is allowed. seconds: after which the next one is."""

    def __init__(self, seconds: float):
        super().__init__(seconds)
        self.seconds = seconds


class Rate:
    """`count` requests at once by an address, and as many more a minute."""

    def __init__(self, count: int):
        self._count = count
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, address: str) -> None:
        """Count one request. Raises TooMany."""
        now = time.monotonic()
        with self._lock:
            left, since = self._left.pop(address, (float(self._count), now))
            left = min(self._count, left + (now - since) * self._count / 60)
            self._left[address] = (left - 1 if left >= 1 else left, now)
            while len(self._left) > _ADDRESSES:
                self._left.popitem(last=False)
        if left < 1:
            raise TooMany((1 - left) * 60 / self._count)


def receive(source: BinaryIO, target: Path, most: int) -> bool:
    """Copy at most `most` bytes to a new file; whether that was all there was."""
    copied = 0
    with target.open("xb") as file:
        while data := source.read(1 << 20):
            copied += len(data)
            if copied > most:
                return False
            file.write(data)
    return True
