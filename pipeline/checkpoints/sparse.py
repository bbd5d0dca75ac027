"""Weights with many zeros, kept small on disk: one bit per entry says whether it is there, and only
those are stored.

A packed tensor is {"shape": [..], "kept": uint8 (ceil(n / 8),), "values": the entries that are not
0, in order}. With a share d of float32 entries left it takes 4 d + 1/8 bytes per entry instead of
4, so up to d = 0.96 it is smaller (CSR needs 8 d: more, down to d = 1/32). `partial.read_model`
unpacks, so a pruned checkpoint loads like any other.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from models.base import Mismatch

_LEAST_SAVING = 512  # bytes: each further tensor costs the archive about half of that
_FIX = "The file is damaged; prune again."
_KEYS = {"shape", "kept", "values"}


def packed(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """Return a state dict with each floating tensor packed where that is smaller; the others as
    they are.
    """
    return {name: _pack(tensor) for name, tensor in weights.items()}


def unpacked(weights: Mapping[str, object]) -> dict[str, object]:
    """Return the state dict again, with new tensors for packed entries; zeros are +0.0 there.

    Raises Mismatch if a packed entry contradicts itself. It grows to at most 32 times its size in
    the file.
    """
    return {
        name: _unpack(name, value) if isinstance(value, Mapping) else value
        for name, value in weights.items()
    }


def stored_bytes(weights: Mapping[str, object]) -> int:
    """Bytes of all tensors of a state dict, packed or not, without what the archive adds."""
    parts = [
        t
        for value in weights.values()
        for t in (value.values() if isinstance(value, Mapping) else [value])
    ]
    return sum(part.numel() * part.element_size() for part in parts if isinstance(part, Tensor))


def _pack(tensor: Tensor) -> object:
    if not tensor.is_floating_point():
        return tensor
    kept = tensor != 0
    values = tensor[kept]
    saved = (tensor.numel() - values.numel()) * tensor.element_size() - math.ceil(
        tensor.numel() / 8
    )
    if saved < _LEAST_SAVING:
        return tensor
    bits = torch.from_numpy(np.packbits(kept.numpy(force=True)))
    return {"shape": list(tensor.shape), "kept": bits, "values": values.detach().cpu()}


def _unpack(name: str, value: Mapping) -> Tensor:
    shape, kept, values = _checked(name, value)
    n = math.prod(shape)
    mask = torch.from_numpy(np.unpackbits(kept.numpy(), count=n).view(bool)).view(shape)
    if int(mask.sum()) != len(values):
        raise Mismatch(f"{name}: {len(values):,} values for {int(mask.sum()):,} places", _FIX)
    tensor = torch.zeros(shape, dtype=values.dtype)
    tensor[mask] = values
    return tensor


def _checked(name: str, value: Mapping) -> tuple[list[int], Tensor, Tensor]:
    """Return the parts of a packed entry, none of which was trusted before."""
    shape = value.get("shape")
    kept = value.get("kept")
    values = value.get("values")
    if value.keys() != _KEYS or not all(isinstance(part, Tensor) for part in (kept, values)):
        raise Mismatch(f"{name} is neither a tensor nor a packed one", _FIX)
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise Mismatch(f"{name} has the shape {shape!r}", _FIX)
    # contiguous: a view may claim many more entries than the file holds
    plain = all(part.ndim == 1 and part.is_contiguous() for part in (kept, values))
    if not plain or kept.dtype != torch.uint8 or not values.is_floating_point():
        raise Mismatch(f"{name}: its bits or values are of another kind", _FIX)
    if len(kept) != math.ceil(math.prod(shape) / 8):
        raise Mismatch(f"{name}: {len(kept):,} bytes of bits for the shape {shape}", _FIX)
    return shape, kept, values
