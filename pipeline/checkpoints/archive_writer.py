"""Writing torch archives: atomically, and with equal bytes for equal content."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from pipeline.core.files import atomic_path
from pipeline.errors import refusal


def write_archive(path: Path, value: object) -> None:
    """Save tensors and plain containers; the old file stays until the new one is whole.
    SystemRefused: disk full.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        remembering = _Remembering(file)
        try:
            torch.save(_canonical(value), remembering)
        except (RuntimeError, OSError) as error:  # torch turns a failed write into a RuntimeError
            cause = remembering.error or error
            raise (refusal(cause, path) if isinstance(cause, OSError) else None) or cause from error


class _Remembering:
    """A file for torch.save that keeps the OSError torch hides; it has no name for torch to write
    down.
    """

    def __init__(self, file: IO[bytes]):
        self._file, self.error = file, None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _canonical(value: object) -> object:
    """The same content in fresh containers: pickle marks objects it met before, so sharing would
    show in the bytes.
    """
    if isinstance(value, Tensor):
        plain = value.detach().cpu()
        is_part = plain.untyped_storage().nbytes() != plain.numel() * plain.element_size()
        return plain.clone() if is_part else plain  # a part would take the whole storage along
    if isinstance(value, Mapping):
        return {_canonical(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_canonical(v) for v in value)
    if isinstance(
        value, argparse.Namespace
    ):  # only in exported files: hybrid_space keeps its options in one
        return argparse.Namespace(**_canonical(vars(value)))
    if isinstance(value, str):
        return sys.intern(str(value))
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values, not {type(value).__name__}")
