"""Which of several processes this one is, when torchrun started them; known without torch.

Rank 0 alone holds locks, journals and manifests. The others only help where a stage shares its work.
"""

import os


def rank() -> int:
    """Number of this process, 0 for the first and for a single one."""
    return _number("RANK") if size() > 1 else 0


def size() -> int:
    """How many processes torchrun started; 1 without it."""
    return max(1, _number("WORLD_SIZE"))


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else 0
