"""Open what searches an index: its checkpoint, which must be the one that made it."""

import contextlib
from pathlib import Path

from models.base import RetrievalModel
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.checkpoints.opening import open_any
from pipeline.checkpoints.toolkit_file import find_checkpoint
from pipeline.core.files import DigestCache
from pipeline.core.state import STATE
from pipeline.errors import DataError
from pipeline.stores.index.reader import IndexStore

_MARKS = "checkpoint.jsonl"  # its digest by size and times, so that it is not read once more


def open_index(
    folder: Path, store: IndexStore, checkpoint: Path | None = None
) -> tuple[RetrievalModel, ModelInfo]:
    """Return the model that made an index, in eval mode on the CPU.

    checkpoint: where it lies now. DataError if it is gone, or is another one: scores of two
    checkpoints say nothing about each other.
    """
    made = store.head["checkpoint"]
    path = Path(made.get("path", "")) if checkpoint is None else checkpoint
    fix = f"Give it: --checkpoint FILE, or index again: python cli.py index ... --out {folder}"
    if not path.exists():
        raise DataError(
            f"the checkpoint that made this index is not at {path}", where=folder, fix=fix
        )
    file = find_checkpoint(path)
    if digest_of(file, folder) != made.get("sha256"):
        raise DataError(
            f"{file} is another checkpoint than the one that made this index", where=folder, fix=fix
        )
    return open_any(file, made["kind"], made["recipe"])


def digest_of(file: Path, folder: Path) -> str:
    """sha256 of a checkpoint, remembered in the index by size and times, where it can be."""
    cache = DigestCache(folder / STATE / _MARKS)
    digest = cache(file)
    with contextlib.suppress(OSError):  # an index that cannot be written to is searched as well
        cache.save()
    return digest
