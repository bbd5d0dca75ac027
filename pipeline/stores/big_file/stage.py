"""What the steps that write a BigFile share: one group of rows per item, in item order, resumed
after a kill.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from pipeline.core.adopted import resolve
from pipeline.core.artefact import Artefact
from pipeline.core.files import DigestCache, written
from pipeline.core.stage import Item, Outcome, Stage
from pipeline.core.state import STATE, Record, digest
from pipeline.errors import ItemError
from pipeline.stores.big_file.reader import FORMAT, ROWS, BigFile, file_names
from pipeline.stores.big_file.writer import GROUPS, PARTIAL, BigFileWriter


def folder_digest(folder: Path, remembered: Path | None) -> str:
    """Digest of the files of a BigFile folder; `remembered`: where digests of unchanged files are
    kept, None: all are read.
    """
    cache = DigestCache(remembered)
    found = digest([[name, cache(folder / name)] for name in file_names(folder)])
    cache.save()
    return found


def content(features: Artefact, out: Path) -> str:
    """Digest of what is in an input of kind features; for a folder that no step of ours made, of
    its files.
    """
    if features.content:
        return features.content
    return folder_digest(resolve(features.path, FORMAT), out / STATE / "digests.jsonl")


class Rows(NamedTuple):
    """The value of an outcome: ids of the rows, and float32 (len(ids), dim)."""

    ids: Sequence[str]
    values: np.ndarray


class BigFileStage(Stage):
    """A stage whose items are videos and whose `process` gives `Outcome(value=Rows(...))`.

    dim: values per row, known before the first item. has_frames: rows are frames, so
    `video2frames.txt` is written.
    """

    makes: ClassVar[str] = "features"
    store: ClassVar[str] = "single"
    watches_inputs: ClassVar[bool] = True
    has_frames: bool = True
    _writer: BigFileWriter | None = None
    _lender: BigFile | None = None

    @property
    def dim(self) -> int:
        raise TypeError(f"{type(self).__name__}.dim is not defined")

    def open(self, records: list[Record]) -> list[Record]:
        kept = [record.id for record in records if record.usable]
        if (self.out / PARTIAL).exists() or not records or not (self.out / ROWS).exists():
            self._writer = BigFileWriter(self.out, self.dim, kept)
        return []

    def reuse(self, item: Item, record: Record, folder: Path) -> Outcome:
        if self._lender is None or self._lender.path != folder:
            self._lender = BigFile.open(folder)
        rows = Rows(self._lender.videos[item.id], self._lender.read_video(item.id))
        return Outcome(
            status=record.status,
            value=rows,
            outputs={},
            facts=record.facts,
            reason=record.reason,
            message=record.message,
        )

    def commit(self, item: Item, outcome: Outcome, record: Record) -> None:
        self.append(item.id, outcome.value, record)

    def append(self, video_id: str, rows: Rows, record: Record) -> None:
        """Write the rows of a video; its journal line gets their CRC-32, which the format lacks."""
        self._writer.append(video_id, *rows)
        stored = np.ascontiguousarray(rows.values, dtype="<f4")
        record.facts = record.facts | {"crc32": zlib.crc32(stored)}

    def flush(self) -> dict[str, Outcome | ItemError]:
        self._writer.sync()
        return {}

    def finish(self, records: list[Record]) -> dict:
        if (self.out / PARTIAL).exists():
            with BigFileWriter(self.out, self.dim, [record.id for record in records]) as writer:
                writer.finish(writer.videos if self.has_frames else None)
        (self.out / GROUPS).unlink(missing_ok=True)  # left when a kill came right after the rename
        store = BigFile.open(self.out)
        files = {name: written(self.out / name) for name in file_names(self.out)}
        return {"rows": store.rows, "dim": store.dim, "videos": len(records), "files": files}

    def files(self) -> list[Path]:
        return [self.out / name for name in file_names(self.out)]

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = self._lender = None
