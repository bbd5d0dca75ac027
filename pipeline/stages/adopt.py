"""Take a ready feature folder (BigFile) without copying it.

Every row is read and must be finite; sizes, ids and lists of frames must agree. The step's folder
then holds a pointer (`adopted.json`) that stores follow when they are opened. Only features can be
adopted: any other artefact is named by its path in the step that reads it.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from pipeline.core.adopted import POINTER, point, resolve
from pipeline.core.files import written
from pipeline.core.stage import Item, Outcome
from pipeline.core.stage import Stage as Base
from pipeline.core.state import STATE, Record
from pipeline.errors import DataError
from pipeline.stores.big_file.reader import FORMAT, BigFile, file_names
from pipeline.stores.big_file.stage import folder_digest

_ROWS_AT_ONCE = 4096


class Options(BaseModel, extra="forbid"):
    path: Path = Field(
        description=(
            "folder with feature.bin, id.txt, shape.txt and, for features of frames,"
            " video2frames.txt"
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
        store = BigFile.open(self._folder)
        facts = {
            "rows": store.rows,
            "dim": store.dim,
            "videos": len(store.videos),
            "unlisted": len(store.unlisted),
        }
        _expect_finite(store)
        point(self.out, self._folder, FORMAT, item.key, file_names(self._folder))
        return Outcome(outputs={POINTER: written(self.out / POINTER)}, facts=facts)

    def finish(self, records: list[Record]) -> dict:
        return {"path": str(self._folder), "digest": self._digest} | (
            records[0].facts if records else {}
        )

    @cached_property
    def _folder(self) -> Path:
        return resolve(self.options.path, FORMAT).resolve()

    @cached_property
    def _digest(self) -> str:
        BigFile.open(
            self._folder
        )  # says what is wrong with a folder that is none, before anything is hashed
        return folder_digest(self._folder, self.out / STATE / "digests.jsonl")


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
            fix=(
                "Extract these features again, or leave their videos out: no row is dropped"
                " silently."
            ),
        )
