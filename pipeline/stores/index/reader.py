"""IndexStore: encodings of whole videos and of windows in them, mapped from files, read-only.

A folder:
    index.json    counts, arrays, what they were made with and of, what was set aside
    spans.bin     a row per window: video uint32, start and end float32 seconds (end NaN: unknown)
    names.bin     id and path of every video, bytes one behind the other
    names.idx     uint64 (2 n + 1): where each of them begins, and the end
    <array>.bin   a row per window: float16 encodings, uint8 masks; "summary" chooses candidates

Rows of a video follow each other, the whole video first. Nothing is read until it is needed: a
million rows open in milliseconds.
"""

import fnmatch
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.errors import DataError

STORE, INDEX = "store", "index.json"
SPANS, NAMES, OFFSETS = "spans.bin", "names.bin", "names.idx"
PARTIAL = f"{STORE}.partial"
SCHEMA = "tvrkit-index-1"
SUMMARY = "summary"
SPAN = np.dtype([("video", "<u4"), ("start", "<f4"), ("end", "<f4")])
DTYPES = {"float16": np.dtype("<f2"), "uint8": np.dtype("u1")}
_AGAIN = "Run the same index command again."


@dataclass(frozen=True)
class Place:
    """What a row shows: a video and the seconds in it; end None: up to an end nobody knows."""

    video_id: str
    path: str
    start: float
    end: float | None


class IndexStore:
    """An index on disk. Opens without torch, maps its arrays on first use, pickles as its path.

    root: instead of the folder that the paths of videos are below (a collection that was moved).
    """

    def __init__(self, folder: Path, root: Path | None = None):
        self.folder = Path(folder)
        self._store = _locate(self.folder)
        self.head = _read_head(self._store / INDEX)
        self.rows: int = self.head["rows"]
        self.n_videos: int = self.head["videos"]
        self.root = Path(self.head["root"] if root is None else root)
        self._arguments = (self.folder, root)
        _check_sizes(self._store, self.head)

    @classmethod
    def open(cls, folder: Path, root: Path | None = None) -> "IndexStore":
        """Return the index in `folder`. DataError: there is none, it is unfinished or damaged."""
        return cls(folder, root)

    def __reduce__(self):
        return IndexStore, self._arguments

    @property
    def names(self) -> list[str]:
        """The arrays that each row has."""
        return list(self.head["arrays"])

    @cached_property
    def spans(self) -> np.ndarray:
        """video, start, end of every row, `SPAN` (rows,); a view of the map."""
        return self._map(SPANS, SPAN, (self.rows,))

    def array(self, name: str) -> np.ndarray:
        """Return an array of all rows, (rows, ...) as stored; a view of the map. KeyError if
        unknown.
        """
        if name not in self._arrays:
            facts = self.head["arrays"][name]
            shape = (self.rows, *facts["shape"])
            self._arrays[name] = self._map(f"{name}.bin", DTYPES[facts["dtype"]], shape)
        return self._arrays[name]

    def encodings(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Return the encodings of some rows (not their summaries), as stored; copies unless a
        slice.
        """
        return {name: self.array(name)[rows] for name in self.names if name != SUMMARY}

    def video_id(self, video: int) -> str:
        """Return the id of a video by its number; bytes that are no UTF-8 as surrogates."""
        return self._name(2 * video)

    def path(self, video: int) -> str:
        """Return where a video lies, below `root`; empty where nobody knew."""
        name = self._name(2 * video + 1)
        return str(self.root / name) if name else ""

    def place(self, row: int) -> Place:
        """Return what a row shows."""
        video, start, end = self.spans[row].tolist()
        known = None if math.isnan(end) else round(end, 3)
        return Place(self.video_id(video), self.path(video), round(start, 3), known)

    def number_of(self, video_id: str) -> int | None:
        """Return the number of a video by its id."""
        return self._numbers.get(video_id)

    def rows_of(self, video: int) -> range:
        """Return the rows of a video, the whole one first."""
        first, last = np.searchsorted(self.spans["video"], [video, video + 1])
        return range(int(first), int(last))

    def matching(self, pattern: str) -> np.ndarray:
        """Return which rows belong to videos whose path below `root`, or id, fits a glob; bool
        (rows,).
        """
        fits = np.fromiter(
            (
                fnmatch.fnmatchcase(path or video_id, pattern)
                or fnmatch.fnmatchcase(video_id, pattern)
                for video_id, path in zip(self.ids(), self._paths(), strict=True)
            ),
            bool,
            self.n_videos,
        )
        return fits[self.spans["video"]]

    def ids(self) -> Iterator[str]:
        """Return the ids of all videos, in order."""
        return (self._name(n) for n in range(0, 2 * self.n_videos, 2))

    def _paths(self) -> Iterator[str]:
        return (self._name(n) for n in range(1, 2 * self.n_videos, 2))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {video_id: n for n, video_id in enumerate(self.ids())}

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {}

    @cached_property
    def _offsets(self) -> np.ndarray:
        return self._map(OFFSETS, np.dtype("<u8"), (2 * self.n_videos + 1,))

    @cached_property
    def _blob(self) -> np.ndarray:
        return self._map(NAMES, np.dtype("u1"), (self.head["name_bytes"],))

    def _name(self, n: int) -> str:
        start, end = int(self._offsets[n]), int(self._offsets[n + 1])
        if not start <= end <= len(self._blob):
            raise _damaged(self._store / OFFSETS, "its offsets do not rise")
        return self._blob[start:end].tobytes().decode("utf-8", "surrogatepass")

    def _map(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        if not math.prod(shape):
            return np.empty(shape, dtype)
        # private: torch warns of arrays that cannot be written, and nobody writes to this one
        return np.memmap(self._store / name, dtype, "c", shape=shape)


def is_index(path: Path) -> bool:
    """Return whether a folder is, or was to become, an index."""
    return (path / STORE / INDEX).is_file() or (path / PARTIAL).is_dir()


def encoded_names(video_id: str, path: str) -> tuple[bytes, bytes]:
    """Return an id and a path as names.bin holds them: whatever bytes a file system or a data set
    gave.
    """
    return tuple(name.encode("utf-8", "surrogatepass") for name in (video_id, path))


def file_sizes(head: Mapping) -> dict[str, int]:
    """Return the files of a store with their sizes in bytes, by what index.json says."""
    rows = head["rows"]
    sizes = {
        SPANS: rows * SPAN.itemsize,
        OFFSETS: 8 * (2 * head["videos"] + 1),
        NAMES: head["name_bytes"],
    }
    for name, facts in head["arrays"].items():
        sizes[f"{name}.bin"] = rows * row_bytes(facts)
    return sizes


def row_bytes(facts: Mapping) -> int:
    """Bytes of a row of an array, {"dtype", "shape"}."""
    return DTYPES[facts["dtype"]].itemsize * math.prod(facts["shape"])


def _locate(folder: Path) -> Path:
    if (folder / STORE / INDEX).is_file():
        return folder / STORE
    if (folder / PARTIAL).is_dir():
        raise DataError("this index is not finished", where=folder, fix=_AGAIN)
    raise DataError(
        "there is no index here",
        where=folder,
        fix=f"Make one: python cli.py index --in FOLDER --checkpoint CKPT --out {folder}",
    )


def _read_head(file: Path) -> dict:
    try:
        head = json.loads(file.read_bytes())
        if head["schema"] != SCHEMA:
            raise ValueError(f"schema {head['schema']!r}")
        counts = [head["rows"], head["videos"], head["name_bytes"]]
        shapes = [facts["shape"] for facts in head["arrays"].values()]
        if not _are_counts([*counts, *(n for shape in shapes for n in shape)]):
            raise ValueError("counts that are no numbers")
        if not all(_is_plain(n) and f["dtype"] in DTYPES for n, f in head["arrays"].items()):
            raise ValueError("unknown arrays")
        if not isinstance(head["root"], str) or not isinstance(head["checkpoint"], dict):
            raise ValueError("no root or checkpoint")
    except OSError as error:
        raise _damaged(file, error.strerror or error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(file, f"not an index: {error}") from error
    return head


def _are_counts(values: Sequence[object]) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier()


def _check_sizes(store: Path, head: Mapping) -> None:
    for name, size in file_sizes(head).items():
        file = store / name
        try:
            found = file.stat().st_size
        except OSError as error:
            raise _damaged(file, error.strerror or error) from error
        if found != size:
            raise _damaged(file, f"{found:,} bytes, the index wrote {size:,}")


def _damaged(file: Path, what: object) -> DataError:
    return DataError(
        f"this index is damaged: {what}", where=file, fix="Remove its folder and index again."
    )
