""".safetensors files, read and written by the library of that name: nothing in them is executed.

A model of ours is written with recipe, facts and training as metadata, so that such a file needs no
other one: it can go to a model hub, and every command takes it where it takes best.pt.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch as library
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.checkpoints import first_bytes
from pipeline.core.files import atomic_write
from pipeline.errors import DataError

SUFFIX = ".safetensors"
_KEY = "tvrkit"  # of the metadata, which maps texts to texts


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors by name, on the CPU, in memory of their own. DataError if damaged or of
    another kind.

    The file is read, not mapped: one that is cut while it is mapped would kill the process.
    """
    path = Path(path)
    try:
        first_bytes.check(path)
        return library.load(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, fix="Check the path."
        ) from error
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def read_ours(path: Path) -> dict | None:
    """Return {format, version, recipe, facts, training, weights} of a model that we wrote; None if
    another program wrote the file. DataError as `read`.
    """
    try:
        first_bytes.check(path)
        with safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get(_KEY)
        head = None if said is None else json.loads(said)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, fix="Check the path."
        ) from error
    except (SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(head, dict):
        return None
    return head | {"weights": read(path)}


def write_ours(path: Path, head: Mapping[str, object], weights: Mapping[str, Tensor]) -> None:
    """Write a model. head: plain values. Tensors that share memory are written each by itself."""
    apart = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
    metadata = {"format": "pt", _KEY: json.dumps(head, ensure_ascii=False)}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, library.save(apart, metadata))


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"not a readable .safetensors file: {error}",
        where=path,
        fix="The file is cut short, damaged or of another kind; download it again.",
    )
