"""Which of several processes this one is, when torchrun started them; known without torch.

Rank 0 alone holds locks, journals and manifests. The others only help where a stage shares its
work.
"""

import contextlib
import os
import sys


def rank() -> int:
    """Number of this process, 0 for the first and for a single one."""
    return _number("RANK") if size() > 1 else 0


def size() -> int:
    """Return how many processes torchrun started; 1 without it."""
    return max(1, _number("WORLD_SIZE"))


def leave(code: int) -> None:
    """End this process with an exit code; all files are closed and on disk.

    Of several processes without Python's clean-up: a thread of gloo that still lets go of a tensor
    while the interpreter goes down aborts a process whose work is done (seen under load: signal 6;
    torchrun stops the others).
    """
    if size() > 1:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else 0
