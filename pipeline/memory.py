"""What to say when memory runs out: how much was being worked on, and which knobs make it less."""

import contextlib
from collections.abc import Iterator

import torch

from pipeline.errors import SystemRefused

_CPU = (
    "can't allocate memory",
    "not enough memory",
    "DefaultCPUAllocator",
)  # torch has no class of its own for it


@contextlib.contextmanager
def naming_knobs(doing: str, knobs: str) -> Iterator[None]:
    """Turn running out of memory in the block into a SystemRefused.

    doing: what the block works on, such as "a batch of 128 captions"; knobs: what to change, a
    sentence.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise SystemRefused(f"out of memory: {first[:160]}", where=doing, fix=knobs) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the GPU or the machine has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU)
