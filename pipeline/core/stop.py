"""Ctrl-C and SIGTERM: the first asks the run to stop at a consistent point, the second ends the
process at once.

The flag is module state because a signal belongs to the whole process.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

GRACE_SECONDS = 7.0  # a container gives 10 s before SIGKILL; state must be consistent well before
EXIT_CODE = 130

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WATCHDOG = "end after the grace period"

_flag = threading.Event()


def requested() -> bool:
    """True once the user or the system asked the run to stop. Long inline work polls this between
    units of work.
    """
    return _flag.is_set()


@contextlib.contextmanager
def handling() -> Iterator[None]:
    """Handle SIGINT and SIGTERM while the block runs (main thread, outermost block; others change
    nothing).
    """
    nested = signal.getsignal(signal.SIGINT) is _handle
    if nested or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, _handle) for number in _SIGNALS}
    heard, told = socket.socketpair()
    told.setblocking(False)
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(heard,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in previous.items():
            signal.signal(number, handler)
        told.close()  # ends the watch
        for timer in [t for t in threading.enumerate() if t.name == _WATCHDOG]:
            timer.cancel()
        _flag.clear()


def _watch(heard: socket.socket) -> None:
    """Count the grace period from the arrival of the first signal.

    The handler of Python waits until the main thread is back from what it calls, which may be a
    product of matrices that takes seconds; this thread does not wait. Work that does not poll the
    flag must not outlive the grace period of a container stop.
    """
    while number := heard.recv(1):
        if number[0] in _SIGNALS:
            watchdog = threading.Timer(GRACE_SECONDS, _end)
            watchdog.daemon, watchdog.name = True, _WATCHDOG
            watchdog.start()
            return


def _forget_in_child() -> None:
    """A forked child does not tell the parent's watch of its own signals."""
    with contextlib.suppress(ValueError):
        if signal.getsignal(signal.SIGINT) is _handle:
            signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_in_child)


def _handle(_number: int, _frame: object) -> None:
    if _flag.is_set():
        _end()
    _flag.set()
    sys.stderr.write("\nstopping: finishing what is in hand (once more to end at once)\n")


def _end() -> None:
    # workers notice that their parent is gone and end themselves; every file on disk is whole or
    # temporary
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(EXIT_CODE)
