"""Features as other extractors write them: one array per video, in .npy, .npz or HDF5 files.

A path is one such file, or a folder of them (folders below it too). An array is float or integer,
(frames, dims), or (dims,) for a video that has one vector. The id of a video is the path of its
file below the folder, without the suffix; inside an archive it is the name of the array, with the
groups in front of it. A name that every extractor gives (`features`, `arr_0`) is no id: then the
group or the file names the video. Nothing is unpickled, no link inside a file is followed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline import log
from pipeline.arrays import read_npy, read_npz
from pipeline.errors import DataError

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
_COMMON = frozenset(
    {"arr_0", "data", "embedding", "embeddings", "feat", "feats", "feature", "features", "x"}
)
_SHOWN = 3
_MOST_EXPANSION = 64  # bytes in memory for a byte of an HDF5 file, beyond 64 MB
_FREE_BYTES = 64 << 20


@dataclass(frozen=True)
class _Array:
    """One array: where it is, its id and shape, and how to read it."""

    where: str
    video_id: str
    shape: tuple[int, ...]
    kind: str  # of its dtype: "f", "i", "u" are numbers
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class VideoArrays:
    """The arrays of a path, in the order of their ids; all have `dim` values a row."""

    arrays: list[_Array]
    dim: int
    has_frames: bool

    @property
    def frame_lists(self) -> dict[str, list[str]] | None:
        """{video id: ids of its rows}, or None where every video has one vector."""
        if not self.has_frames:
            return None
        return {array.video_id: _row_ids(array, True) for array in self.arrays}

    def rows(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """Yield (where, id of the row, float32 (dim,)) of every row."""
        for array in self.arrays:
            with np.errstate(over="ignore"):  # becomes infinite, and that row is left out
                values = np.asarray(array.read(), dtype=np.float32)
            rows = values.reshape(-1, self.dim)
            for row_id, row in zip(_row_ids(array, self.has_frames), rows, strict=True):
                yield array.where, row_id, row


def is_array_path(path: Path) -> bool:
    """Return whether a path is a file of arrays, or a folder that holds one and is no BigFile."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    if (path / "shape.txt").exists() or (path / "adopted.json").exists():
        return False
    return next(_files(path), None) is not None


def read_video_arrays(path: Path) -> VideoArrays:
    """Return the features of every video below `path`.

    Raises DataError if a file cannot be used, two arrays have one id, or widths differ; it names
    them.
    """
    files = sorted(_files(path)) if path.is_dir() else [path]
    arrays = [array for file in files for array in _arrays_of(path, file)]
    _tell_others(path)
    if not arrays:
        raise DataError("it holds no array", where=path, fix="Give one array per video.")
    _expect_usable(path, arrays)
    arrays.sort(key=lambda array: array.video_id)
    has_frames = any(len(array.shape) == 2 for array in arrays)
    return VideoArrays(arrays, arrays[0].shape[-1], has_frames)


def _row_ids(array: _Array, has_frames: bool) -> list[str]:
    if not has_frames:
        return [array.video_id]
    n_rows = array.shape[0] if len(array.shape) == 2 else 1
    return [f"{array.video_id}_{n}" for n in range(n_rows)]


def _files(folder: Path) -> Iterator[Path]:
    """Files of arrays below a folder; hidden ones (what macOS puts beside a copy) do not count."""
    for path in folder.rglob("*"):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in SUFFIXES and not is_hidden and path.is_file():
            yield path


def _tell_others(path: Path) -> None:
    if not path.is_dir():
        return
    names = [p.name for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")]
    others = [name for name in names if Path(name).suffix.lower() not in SUFFIXES]
    if others:
        log.info(f"{path}: {len(others):,} files hold no arrays and are passed over: {others[0]!r}")


def _arrays_of(root: Path, file: Path) -> list[_Array]:
    stem = _stem(root, file)
    if file.suffix.lower() == ".npy":
        array = read_npy(file)
        return [_Array(str(file), stem, array.shape, array.dtype.kind, partial(read_npy, file))]
    inner = _of_npz(file) if file.suffix.lower() == ".npz" else _of_hdf5(file)
    return [_named(array, stem) for array in inner]


def _stem(root: Path, file: Path) -> str:
    name = file.name if root == file else file.relative_to(root).as_posix()
    return name[: len(name) - len(file.suffix)]


def _named(array: _Array, stem: str) -> _Array:
    """With the id of its video: its own name, or that of the group or file where it has none."""
    group, _, name = array.video_id.rpartition("/")
    video_id = array.video_id if name.lower() not in _COMMON else group or stem
    return _Array(array.where, video_id, array.shape, array.kind, array.read)


def _of_npz(file: Path) -> list[_Array]:
    return [
        _Array(
            f"{file}: {name!r}", name, array.shape, array.dtype.kind, partial(_member, file, name)
        )
        for name, array in _read_archive(file).items()
    ]


def _member(file: Path, name: str) -> np.ndarray:
    return _read_archive(file)[name]


@lru_cache(maxsize=1)  # its arrays are asked for one after another; more would fill the memory
def _read_archive(file: Path) -> dict[str, np.ndarray]:
    return read_npz(file)


def _of_hdf5(file: Path) -> list[_Array]:
    with _opened(file) as opened:
        found = list(_datasets(opened, ""))
        expanded = sum((dataset.size or 0) * dataset.dtype.itemsize for _, dataset in found)
        if expanded > max(_FREE_BYTES, _MOST_EXPANSION * file.stat().st_size):
            raise ValueError(f"{file.stat().st_size:,} bytes that would expand to {expanded:,}")
        return [
            _Array(
                f"{file}: {name!r}",
                name,
                tuple(dataset.shape or ()),
                dataset.dtype.kind,
                partial(_read_dataset, file, name),
            )
            for name, dataset in found
        ]


def _read_dataset(file: Path, name: str) -> np.ndarray:
    with _opened(file) as opened:
        return opened[name][()]


@contextmanager
def _opened(file: Path) -> "Iterator[h5py.File]":
    import h5py

    try:
        with h5py.File(file, "r", locking=False) as opened:
            yield opened
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        what = " ".join(str(error).split())[:200]
        raise DataError(
            f"not a usable HDF5 file: {what}",
            where=file,
            fix="Copy it again, or write one dataset of numbers per video.",
        ) from error


def _datasets(group: "h5py.Group", prefix: str) -> "Iterator[tuple[str, h5py.Dataset]]":
    """Yield (path, dataset) of all that lie in the file itself: links to elsewhere are refused."""
    import h5py

    for name in group:
        path = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{path!r} is a link; only what lies in the file itself is read")
        member = group[name]
        if isinstance(member, h5py.Group):
            if path.count("/") > 32:
                raise ValueError(f"groups lie more than 32 deep, at {path[:80]!r}")
            yield from _datasets(member, f"{path}/")
        elif isinstance(member, h5py.Dataset):
            if member.external or member.is_virtual:
                raise ValueError(f"the values of {path!r} lie in another file")
            yield path, member


def _expect_usable(path: Path, arrays: list[_Array]) -> None:
    """DataError unless all are numbers of one width, each with an id of its own."""
    odd = [
        f"{array.video_id!r} {array.shape}"
        for array in arrays
        if array.kind not in "fiu" or len(array.shape) not in (1, 2) or 0 in array.shape
    ]
    if odd:
        raise DataError(
            f"{len(odd):,} of {len(arrays):,} arrays are no features of a video:"
            f" {', '.join(odd[:_SHOWN])}",
            where=path,
            fix="Save numbers, (frames, dims) or (dims,), one array per video.",
        )
    first: dict[str, _Array] = {}
    twice = [a for a in arrays if first.setdefault(a.video_id, a) is not a]
    if twice:
        raise DataError(
            f"{len(twice):,} ids stand there more than once: {twice[0].video_id!r} in"
            f" {first[twice[0].video_id].where} and {twice[0].where}",
            where=path,
            fix="Rename one of them. Nothing was written.",
        )
    if bad := [array.video_id for array in arrays if not _is_id(array.video_id)]:
        raise DataError(
            f"{bad[0][:80]!r} cannot be the id of a video", where=path, fix="Rename that array."
        )
    _expect_one_width(path, arrays)


def _is_id(video_id: str) -> bool:
    parts = video_id.split("/")
    return video_id.isprintable() and len(video_id) <= 480 and not {"", ".", ".."} & set(parts)


def _expect_one_width(path: Path, arrays: list[_Array]) -> None:
    by_width: dict[int, list[str]] = {}
    for array in arrays:
        by_width.setdefault(array.shape[-1], []).append(array.video_id)
    if len(by_width) == 1:
        return
    common = max(by_width, key=lambda width: len(by_width[width]))
    others = [
        f"{video_id!r} has {width:,}"
        for width, ids in by_width.items()
        if width != common
        for video_id in ids
    ]
    more = f" and {len(others) - _SHOWN:,} more" if len(others) > _SHOWN else ""
    raise DataError(
        f"rows have different widths: {len(by_width[common]):,} videos have {common:,} values,"
        f" {', '.join(others[:_SHOWN])}{more}",
        where=path,
        fix="Join only features of the same network.",
    )
