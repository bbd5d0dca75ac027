"""Take ready features: a BigFile, or one array per video.

A BigFile is not copied. Every row is read and must be finite; sizes, ids and lists of frames must
agree. The step's folder then holds a pointer (`adopted.json`) that stores follow when they are
opened. Arrays, one per video in .npy, .npz or HDF5 files (pipeline/stores/big_file/array_files.py),
are written there as a BigFile instead. Only features can be adopted: any other artefact is named by
its path in the step that reads it.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from pipeline.core.adopted import POINTER, point, resolve
from pipeline.core.artefact import content_of_input
from pipeline.core.files import written
from pipeline.core.stage import Item, Outcome
from pipeline.core.stage import Stage as Base
from pipeline.core.state import STATE, Record
from pipeline.errors import DataError, ItemError
from pipeline.stores.big_file.array_files import is_array_path, read_video_arrays
from pipeline.stores.big_file.reader import FORMAT, BigFile, file_names
from pipeline.stores.big_file.stage import folder_digest
from pipeline.stores.big_file.writer import BigFileWriter

_ROWS_AT_ONCE = 4096
_FIX = (
    "Extract these features again, or leave their videos out: no row is dropped silently."
    " `union` leaves out single rows and counts them."
)


class Options(BaseModel, extra="forbid"):
    path: Path = Field(
        description=(
            "folder with feature.bin, id.txt, shape.txt and, for features of frames,"
            " video2frames.txt; or .npy files (one per video, folders too), an .npz or .h5 file"
        )
    )
    format: Literal["bigfile"] = Field("bigfile", description="what the folder holds")


class Stage(Base):
    makes = "features"
    Options = Options

    def items(self) -> Iterable[Item]:
        # the key is the digest of all files: a change under the same path makes the step stale
        yield Item(FORMAT, self._digest, source=str(self.options.path))

    def process(self, item: Item) -> Outcome:
        if self._is_arrays:
            return self._written()
        store = BigFile.open(self._folder)
        facts = _facts(store)
        _expect_finite(store)
        point(self.out, self._folder, FORMAT, item.key, file_names(self._folder))
        return Outcome(outputs={POINTER: written(self.out / POINTER)}, facts=facts)

    def _written(self) -> Outcome:
        """Return the arrays of another extractor as a BigFile in the step's own folder."""
        found = read_video_arrays(self._folder)
        with BigFileWriter(self.out, found.dim) as writer:
            for where, row_id, row in found.rows():
                try:
                    writer.append(row_id, [row_id], row[None])
                except ItemError as error:
                    raise DataError(str(error), where=where, fix=_FIX) from error
            writer.finish(found.frame_lists)
        outputs = {name: written(self.out / name) for name in file_names(self.out)}
        return Outcome(outputs=outputs, facts=_facts(BigFile.open(self.out)))

    def finish(self, records: list[Record]) -> dict:
        return {"path": str(self._folder), "digest": self._digest} | (
            records[0].facts if records else {}
        )

    @cached_property
    def _is_arrays(self) -> bool:
        return is_array_path(self.options.path)

    @cached_property
    def _folder(self) -> Path:
        return resolve(self.options.path, FORMAT).resolve()

    @cached_property
    def _digest(self) -> str:
        if self._is_arrays:
            return content_of_input(self._folder, self.out / STATE / "digests.jsonl")
        BigFile.open(
            self._folder
        )  # says what is wrong with a folder that is none, before anything is hashed
        return folder_digest(self._folder, self.out / STATE / "digests.jsonl")


def _facts(store: BigFile) -> dict[str, int]:
    return {
        "rows": store.rows,
        "dim": store.dim,
        "videos": len(store.videos),
        "unlisted": len(store.unlisted),
    }


def _expect_finite(store: BigFile) -> None:
    bad: list[str] = []
    for start in range(0, store.rows, _ROWS_AT_ONCE):
        finite = np.isfinite(store.block(start, min(start + _ROWS_AT_ONCE, store.rows))).all(axis=1)
        bad += [store.ids[start + n] for n in np.flatnonzero(~finite)]
    if bad:
        raise DataError(
            f"{len(bad):,} of {store.rows:,} rows hold NaN or infinite values:"
            f" {', '.join(map(repr, bad[:3]))}",
            where=store.path,
            fix=_FIX,
        )
