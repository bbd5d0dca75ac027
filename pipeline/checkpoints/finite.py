"""Weights with NaN or infinity are at fault, not the videos that a training then reads with
them.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import DataError

_SHOWN = 3


def check(path: Path, weights: Mapping[str, object]) -> None:
    """Raise DataError naming the tensors of `path` in which not every number is finite."""
    faults = [name for name, value in weights.items() if not _is_finite(value)]
    if not faults:
        return
    more = f" and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
    raise DataError(
        f"weights with NaN or infinity in {len(faults):,} of {len(weights):,} tensors:"
        f" {', '.join(faults[:_SHOWN])}{more}",
        where=path,
        fix="Use an earlier checkpoint of that training run, or download the file again.",
    )


def _is_finite(value: object) -> bool:
    if (
        not isinstance(value, Tensor)
        or not value.is_floating_point()
        or value.layout != torch.strided
    ):
        return True
    return bool(torch.isfinite(value).all())
