"""Write an index video by video, so that a kill loses nothing that was journalled.

Rows go to files in `store.partial/`, what they show to `groups.jsonl` there (a line per video). On
resume all are cut back to the videos that the journal knows. `finish` writes the rest and gives the
folder its name. Rows of videos that did not change are copied from the store before, in long runs.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.core.files import atomic_write, sync_folder
from pipeline.errors import DataError, ItemError
from pipeline.stores.index.reader import (
    DTYPES,
    INDEX,
    NAMES,
    OFFSETS,
    PARTIAL,
    SCHEMA,
    SPAN,
    SPANS,
    STORE,
    SUMMARY,
    IndexStore,
    encoded_names,
    row_bytes,
)

_ARRAYS, _GROUPS, _OLD = "arrays.json", "groups.jsonl", f"{STORE}.old"
_COPY_BYTES = 16 << 20


class IndexWriter:
    """Appends videos to the store below `folder`; one writer per folder.

    keep: ids of the videos to keep from a run that was killed, the first ones in this order; none:
    start afresh. Raises DataError if the partial files hold less than that.
    """

    def __init__(self, folder: Path, keep: Sequence[str] = ()):
        self.folder, self._partial = Path(folder), Path(folder) / PARTIAL
        if not keep:
            shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True, exist_ok=True)
        self._arrays: dict[str, dict] = {}
        self._files: dict[str, int] = {}
        self._run: tuple[IndexStore, int, int] | None = None  # videos to be copied: from, up to
        self._lines = self._open(_GROUPS)
        if keep:
            self._cut_back(keep)

    def append(
        self, video_id: str, path: str, spans: np.ndarray, arrays: Mapping[str, np.ndarray]
    ) -> None:
        """Append a video. spans: float32 (W, 2) start and end in seconds; arrays: (W, ...) each.

        Floats are kept as float16, booleans as uint8. ItemError not_finite for what float16 cannot
        hold; then nothing is written. path: below the root, or "".
        """
        stored = {name: _stored(name, values) for name, values in arrays.items()}
        self._copy_run()
        self._expect({name: _facts(values) for name, values in stored.items()})
        for name, values in stored.items():
            _write(self._files[name], values.data.cast("B"))
        self._line(video_id, path, spans)

    def lend(self, store: IndexStore, video: int, path: str) -> None:
        """Append a video as another store has it."""
        if self._run and self._run[0] is store and self._run[2] == video:
            self._run = (store, self._run[1], video + 1)
        else:
            self._copy_run()
            self._run = (store, video, video + 1)
        rows = store.rows_of(video)
        found = store.spans[rows.start : rows.stop]
        self._line(store.video_id(video), path, np.stack([found["start"], found["end"]], 1))

    def sync(self) -> None:
        """Make everything appended survive a power failure."""
        self._copy_run()
        for file in (*self._files.values(), self._lines):
            os.fdatasync(file)

    def finish(self, head: Mapping) -> None:
        """Write what is left and give the store its name. head: what index.json says besides."""
        self._copy_run()
        ids, paths, spans = _read_groups(self._partial / _GROUPS)
        names = [part for pair in zip(ids, paths, strict=True) for part in encoded_names(*pair)]
        offsets = np.cumsum([0, *map(len, names)]).astype("<u8")
        atomic_write(self._partial / SPANS, spans.tobytes())
        atomic_write(self._partial / NAMES, b"".join(names))
        atomic_write(self._partial / OFFSETS, offsets.tobytes())
        counts = {"rows": len(spans), "videos": len(ids), "name_bytes": int(offsets[-1])}
        whole = {"schema": SCHEMA} | counts | {"arrays": self._arrays} | dict(head)
        whole["longest"] = self._longest(len(spans))
        atomic_write(self._partial / INDEX, json.dumps(whole, indent=1).encode() + b"\n")
        self.sync()
        self.close()
        _take_place(self.folder)

    def close(self) -> None:
        """Release the files. A second call does nothing."""
        files = [*self._files.values(), *([] if self._lines is None else [self._lines])]
        self._files, self._lines, self._run = {}, None, None
        for file in files:
            os.close(file)

    def _longest(self, rows: int) -> float:
        """Return the length of the longest summary: it bounds what rounding can do to a product."""
        facts, longest = self._arrays.get(SUMMARY), 0.0
        if not facts or not rows:
            return longest
        size = (rows, int(np.prod(facts["shape"])))
        values = np.memmap(self._partial / f"{SUMMARY}.bin", DTYPES["float16"], "r", shape=size)
        for start in range(0, rows, 8192):
            block = values[start : start + 8192].astype(np.float32)
            longest = max(longest, float(np.sqrt((block * block).sum(1).max())))
        return longest

    def _line(self, video_id: str, path: str, spans: np.ndarray) -> None:
        times = [[_number(v) for v in span] for span in spans]
        _write(self._lines, json.dumps([video_id, path, times]).encode() + b"\n")

    def _expect(self, arrays: dict[str, dict]) -> None:
        if not self._arrays:
            self._arrays = arrays
            atomic_write(self._partial / _ARRAYS, json.dumps(arrays))
            self._files = {name: self._open(f"{name}.bin") for name in arrays}
        if arrays != self._arrays:
            raise ValueError(f"the rows hold {arrays}, but the index holds {self._arrays}")

    def _copy_run(self) -> None:
        if self._run is None:
            return
        store, first, last = self._run
        self._run = None
        self._expect(dict(store.head["arrays"]))
        start, stop = np.searchsorted(store.spans["video"], [first, last]).tolist()
        for name, facts in self._arrays.items():
            step = max(1, _COPY_BYTES // row_bytes(facts))
            for top in range(start, stop, step):
                block = np.ascontiguousarray(store.array(name)[top : min(top + step, stop)])
                _write(self._files[name], block.data.cast("B"))

    def _open(self, name: str) -> int:
        file = self._partial / name
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def _cut_back(self, keep: Sequence[str]) -> None:
        lines = (self._partial / _GROUPS).read_bytes().splitlines(keepends=True)[: len(keep)]
        groups = [json.loads(line) for line in lines]
        if [group[0] for group in groups] != list(keep):
            raise self._lost(keep[-1])
        os.ftruncate(self._lines, sum(map(len, lines)))
        rows = sum(len(group[2]) for group in groups)
        if not (self._partial / _ARRAYS).exists():
            raise self._lost(keep[-1])
        self._expect(json.loads((self._partial / _ARRAYS).read_bytes()))
        for name, facts in self._arrays.items():
            size = rows * row_bytes(facts)
            if os.fstat(self._files[name]).st_size < size:
                raise self._lost(keep[-1])
            os.ftruncate(self._files[name], size)

    def _lost(self, name: str) -> DataError:
        self.close()
        return DataError(
            f"the half-written index does not hold {name!r}, which the journal says is done",
            where=self._partial,
            fix="Remove the folder of the index and run the same command again.",
        )


def tidy(folder: Path) -> None:
    """Remove what only a store that is being written needs."""
    for name in (_ARRAYS, _GROUPS):
        (folder / STORE / name).unlink(missing_ok=True)
    shutil.rmtree(folder / _OLD, ignore_errors=True)


def _take_place(folder: Path) -> None:
    """The finished partial store becomes the store; readers of the one before keep their maps."""
    shutil.rmtree(folder / _OLD, ignore_errors=True)
    sync_folder(folder / PARTIAL)
    if (folder / STORE).exists():
        (folder / STORE).rename(folder / _OLD)
    (folder / PARTIAL).rename(folder / STORE)
    sync_folder(folder)
    shutil.rmtree(folder / _OLD, ignore_errors=True)


def _stored(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype == bool:
        return np.ascontiguousarray(values, np.uint8)
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused below
        small = np.ascontiguousarray(values, DTYPES["float16"])
    if not np.isfinite(small).all():
        raise ItemError("not_finite", f"its {name} holds NaN, or numbers beyond 65,504")
    return small


def _facts(values: np.ndarray) -> dict:
    kind = "uint8" if values.dtype == np.uint8 else "float16"
    return {"dtype": kind, "shape": list(values.shape[1:])}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _read_groups(file: Path) -> tuple[list[str], list[str], np.ndarray]:
    ids, paths, spans = [], [], []
    with file.open("rb") as lines:
        for n, line in enumerate(lines):
            video_id, path, times = json.loads(line)
            ids.append(video_id)
            paths.append(path)
            spans += [(n, start, np.nan if end is None else end) for start, end in times]
    return ids, paths, np.array(spans, SPAN)


def _write(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
