"""Join feature files and folders into one BigFile.

    python cli.py union --in id.feature.txt --out features
    python cli.py union --in train --in val --norm l2 --out features
    python cli.py union --in npy_folder --out features        # also one .npz, one .h5

A text file holds "id v1 v2 ... vD" on each line. Arrays of other extractors are one per video,
(frames, dims) or (dims,). Rows keep the order of the inputs. If several rows
have the same id, the first one counts; rows with values that are not finite are left out. Both are
counted. Source: danieljf24/hybrid_space: util/txt2bin.py; danieljf24/w2vv: merge_feat, norm_feat
(docs/specs/dual-encoding.md, sections 9.1 and 11.3).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from pipeline import log
from pipeline.core.artefact import Artefact, content_of_input
from pipeline.core.files import DigestCache, atomic_path, written
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.stage import Stage as Base
from pipeline.core.state import STATE, Record, digest
from pipeline.errors import DataError
from pipeline.stores.big_file.array_files import is_array_path, read_video_arrays
from pipeline.stores.big_file.feature_text import read_rows
from pipeline.stores.big_file.frame_lists import group_frames
from pipeline.stores.big_file.reader import BigFile, file_names
from pipeline.stores.big_file.stage import content
from pipeline.stores.big_file.writer import BigFileWriter

TEXT = "id.feature.txt"
_ROWS_AT_ONCE = 4096
_NORMS = {"l1": 1, "l2": 2}
_TINY = 1e-9  # as published: a row of zeros stays one


class Options(BaseModel, extra="forbid"):
    norm: Literal["none", "l1", "l2"] = Field(
        "none",
        description=(
            "divide each row by the sum of its absolute values (l1) or by its length (l2)"
        ),
    )
    signed_sqrt: bool = Field(
        False, description="before that, replace each value by its square root and keep its sign"
    )
    frames: Literal["auto", "yes", "no"] = Field(
        "auto",
        description=(
            "whether ids name frames, <video>_<number>; auto: yes if all do, or if the inputs"
            " list frames"
        ),
    )
    text: bool = Field(
        False, description=f"also write {TEXT}, in the form that the published tools read"
    )


class Stage(Base):
    needs = {
        "features": Need(
            "features",
            many=True,
            help=(
                "text files of features, BigFile folders, a folder of .npy files (one per video),"
                " an .npz or .h5 file"
            ),
        )
    }
    makes = "features"
    Options = Options

    def items(self) -> Iterable[Item]:
        given = self.inputs["features"]
        if not given:
            raise DataError(
                "there are no features to join",
                where="union",
                fix="Name a text file or a BigFile folder with --in.",
            )
        yield Item(
            "union",
            digest([self._digest(artefact) for artefact in given]),
            source=str(given[0].path),
        )

    def process(self, item: Item) -> Outcome:
        report = {"rows": 0, "repeated": 0, "not_finite": 0}
        sources = [artefact.path for artefact in self.inputs["features"]]
        rows = self._rows(sources, report)
        first = next(rows, None)
        if first is None:
            raise DataError(
                "there is no row in it",
                where=sources[0],
                fix="Give a file whose lines hold an id and its values.",
            )
        with BigFileWriter(self.out, len(first[1])) as writer:
            writer.append(first[0], [first[0]], first[1][None])
            for item_id, row in rows:
                writer.append(item_id, [item_id], row[None])
            report["rows"] = len(writer.videos)
            writer.finish(self._frame_lists(sources, writer.videos))
        names = file_names(self.out)
        if self.options.text:
            _write_text(BigFile.open(self.out), self.out / TEXT)
            names = [*names, TEXT]
        left_out = {name: n for name, n in report.items() if n and name != "rows"}
        if left_out:
            log.warning(
                "union: rows left out:"
                f" {', '.join(f'{n:,} {name}' for name, n in left_out.items())}"
            )
        return Outcome(outputs={name: written(self.out / name) for name in names}, facts=report)

    def finish(self, records: list[Record]) -> dict:
        return records[0].facts if records else {}

    def _rows(
        self, sources: list[Path], report: dict[str, int]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield each id once, with its scaled row. DataError for rows of another length."""
        seen: set[str] = set()
        dim = 0
        for source in sources:
            for where, item_id, row in _read(source):
                dim = dim or len(row)
                if len(row) != dim:
                    what = f"{len(row):,} values for {item_id!r}, the first row has {dim:,}"
                    raise DataError(
                        what,
                        where=where,
                        fix="Join only features of the same network.",
                    )
                if item_id in seen:
                    report["repeated"] += 1
                    continue
                seen.add(item_id)
                row = self._scaled(row)
                if np.isfinite(row).all():
                    yield item_id, row
                else:
                    report["not_finite"] += 1

    def _scaled(self, row: np.ndarray) -> np.ndarray:
        values = row.astype(np.float64)
        if self.options.signed_sqrt:
            values = np.sign(values) * np.sqrt(np.abs(values))
        if self.options.norm != "none":
            values = values / (np.linalg.norm(values, _NORMS[self.options.norm]) + _TINY)
        return values.astype(np.float32)

    def _frame_lists(
        self, sources: list[Path], stored: Iterable[str]
    ) -> dict[str, list[str]] | None:
        """Frames of each video: as the inputs list them, else by their ids."""
        if self.options.frames == "no":
            return None
        ids, lists = list(stored), {}
        known_ids = set(ids)
        listed = [_listed(source) for source in sources]
        if all(listed):
            for videos in listed:
                for video_id, frames in videos.items():
                    known = dict.fromkeys(lists.get(video_id, []))
                    known |= dict.fromkeys(frame for frame in frames if frame in known_ids)
                    lists[video_id] = list(known)
            return {video_id: frames for video_id, frames in lists.items() if frames}
        if not any(listed) and all(is_array_path(source) for source in sources):
            return None  # a vector per video: a number at the end of an id is not a frame
        grouped = group_frames(ids)
        if grouped is None and self.options.frames == "yes":
            raise DataError(
                "ids that are not <video>_<number>",
                where=sources[0],
                fix="Set frames: no, or auto.",
            )
        return grouped

    def _digest(self, artefact: Artefact) -> str:
        if not artefact.content and is_array_path(artefact.path):
            return content_of_input(artefact.path, self.out / STATE / "digests.jsonl")
        if artefact.content or artefact.path.is_dir():
            return content(artefact, self.out)
        remembered = DigestCache(self.out / STATE / "digests.jsonl")
        try:
            found = remembered(artefact.path)
        except OSError as error:
            raise DataError(
                f"cannot be read: {error.strerror}", where=artefact.path, fix="Check the path."
            ) from error
        remembered.save()
        return found


def _read(source: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield (where, id, row) of a text file, a BigFile folder or arrays, in their order."""
    if is_array_path(source):
        yield from read_video_arrays(source).rows()
        return
    if not source.is_dir():
        for number, item_id, row in read_rows(source):
            yield f"{source}:{number}", item_id, row
        return
    store = BigFile.open(source)
    for start in range(0, store.rows, _ROWS_AT_ONCE):
        block = store.block(start, min(start + _ROWS_AT_ONCE, store.rows))
        for item_id, row in zip(store.ids[start:], block, strict=False):
            yield str(source), item_id, row


def _listed(source: Path) -> dict[str, list[str]] | None:
    """Return {video id: frames} as a source says, or None if it says nothing of frames."""
    if is_array_path(source):
        return read_video_arrays(source).frame_lists
    if not source.is_dir():
        return None
    store = BigFile.open(source)
    return store.videos if store.has_frames else None


def _write_text(store: BigFile, path: Path) -> None:
    """Nine digits: float32 comes back exactly (the published tools write six)."""
    stored_ids = (store.path / "id.txt").read_bytes().split()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for n, item_id in enumerate(stored_ids):
            values = " ".join(f"{value:.9g}" for value in store.block(n, n + 1)[0])
            file.write(item_id + b" " + values.encode() + b"\n")
