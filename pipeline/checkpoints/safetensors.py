"""Tensors of a .safetensors file: a JSON table of contents, then the numbers. There is nothing in
it to execute.

Source: huggingface/safetensors: README.md (Format). Checked as it asks: no gaps, no overlaps,
nothing beyond the end.
"""

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from pipeline.checkpoints import first_bytes
from pipeline.errors import DataError

_LARGEST_TABLE = 100_000_000  # bytes, as the format says
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors by name, on the CPU, views of the file's bytes in memory. DataError if
    damaged or of another kind.
    """
    path = Path(path)
    try:
        first_bytes.check(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _LARGEST_TABLE):
                raise ValueError(f"a table of contents of {length:,} bytes in a file of {size:,}")
            table = json.loads(file.read(length))
            raw = bytearray(file.read())
        return _tensors(table, raw)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, fix="Check the path."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(
            f"not a readable .safetensors file: {error}",
            where=path,
            fix="The file is cut short, damaged or of another kind; download it again.",
        ) from error


def _tensors(table: dict, raw: bytearray) -> dict[str, Tensor]:
    entries = {name: entry for name, entry in table.items() if name != "__metadata__"}
    place, tensors = 0, {}
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (start, stop) = entry["shape"], entry["data_offsets"]
        if entry["dtype"] not in _TYPES or any(
            type(n) is not int or n < 0 for n in (*shape, start, stop)
        ):
            raise ValueError(f"{name} is {entry['dtype']} {shape} at {start} to {stop}")
        dtype = _TYPES[entry["dtype"]]
        if start != place or stop > len(raw) or stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"{name} {shape} lies at {start:,} to {stop:,} of {len(raw):,} bytes, after"
                f" {place:,}"
            )
        numbers = (
            torch.frombuffer(raw, dtype=torch.uint8, count=stop - start, offset=start)
            if stop > start
            else None
        )
        aligned = torch.empty(0, dtype=dtype) if numbers is None else _typed(numbers, dtype)
        tensors[name], place = aligned.view(shape), stop
    if place != len(raw):
        raise ValueError(f"{len(raw) - place:,} bytes that belong to no tensor")
    return {name: tensors[name] for name in entries}


def _typed(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes as numbers; copied where an odd table of contents has left them at an address the type
    cannot have.
    """
    return (numbers if numbers.data_ptr() % dtype.itemsize == 0 else numbers.clone()).view(dtype)
