"""FrameStore: frames of many videos in one LMDB file, read at random by many threads and processes.

Two layouts behind one class, told apart by their content: "tvs1" (docs/specs/preprocessing.md,
section 5.2; each value as in `frame_value`, in the file itself or, placement "pack", in
`frames-<k>.bin` beside it) and "mp4", the published one (key = base name of a video file, value =
its bytes; mzhaoshuai/CenterCLIP: preprocess/folder2lmdb.py).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline.core.adopted import resolve
from pipeline.errors import DataError, ItemError
from pipeline.stores.frame_store import frame_value, lmdb_file
from pipeline.stores.frame_store.opened_store import (
    FILE_NAME,
    REBUILD,
    Layout,
    OpenedStore,
    Placement,
)


@dataclass(frozen=True)
class ClipInfo:
    """One video of a store. frames: for the mp4 layout what the container claims. times_ms: uint32
    (frames,), None if the layout does not keep them. bytes: what the video takes in the store.
    """

    frames: int
    height: int
    width: int
    fps: Fraction
    times_ms: np.ndarray | None
    codec: str
    bytes: int


class FrameStore:
    """Read-only, picklable, opened lazily in each process; safe after fork and spawn and from
    several threads.

    ids: in the order in which the store was built (mp4 layout: in the order of the keys).
    """

    def __init__(self, path: Path, stamp: lmdb_file.Stamp | None = None):
        self.path, self._stamp = path, stamp
        self._opened: OpenedStore | None = None

    @classmethod
    def open(cls, path: Path | str) -> "FrameStore":
        """Return the store at `path`: the LMDB file, or the folder it is in. Its structure is
        checked here, once.

        Raises DataError if it is missing, truncated, unfinished, or something else than a frame
        store.
        """
        file = _locate(resolve(Path(path)))
        store = cls(file, lmdb_file.check(file))
        store._open()
        return store

    def __getstate__(self) -> dict:
        return {"path": self.path, "_stamp": self._stamp, "_opened": None}

    @property
    def ids(self) -> list[str]:
        return self._open().ids

    @property
    def layout(self) -> Layout:
        return self._open().layout

    @property
    def placement(self) -> Placement:
        return self._open().placement

    @property
    def meta(self) -> dict:
        """Schema, options and totals of a store in the layout "tvs1"; {} for the published
        layout.
        """
        return self._open().meta

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, video_id: str) -> bool:
        return self._open().has(video_id)

    def read(
        self,
        video_id: str,
        indices: Sequence[int] | np.ndarray | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the frames at `indices` (any order, repeats allowed; None: all), uint8 (T, H, W,
        3) RGB, yours to keep.

        Only these frames are decoded, straight into `out` when it is given (uint8, C-contiguous).
        Raises KeyError for an unknown id, DataError (id and store named) for a damaged value or an
        index out of range.
        """
        opened = self._open()
        with opened.value(video_id) as value, self._naming(video_id):
            if opened.layout == "mp4":
                return _into(out, _decode_file(bytes(value(0, value.length)), indices))
            head = frame_value.read_head(value, value.length)
            wanted = _checked(indices, head.n_frames)
            if out is None:
                out = np.empty((len(wanted), head.height, head.width, 3), np.uint8)
            elif out.shape != (len(wanted), head.height, head.width, 3) or out.dtype != np.uint8:
                raise ValueError(
                    f"the frames are {head.height}x{head.width}, but `out` is {out.dtype}"
                    f" {out.shape}"
                )
            frame_value.read_frames(head, value, wanted, out)
            return out

    def bytes(self, video_id: str) -> bytes:
        """Return the value as it is stored: the video file (mp4 layout), else the TVS1 value.
        Errors as `read`.
        """
        with self._open().value(video_id) as value, self._naming(video_id):
            return bytes(value(0, value.length))

    def info(self, video_id: str) -> ClipInfo:
        """Return what is known of a video without decoding its frames. Errors as `read`."""
        opened = self._open()
        with opened.value(video_id, checked=False) as value, self._naming(video_id):
            if opened.layout == "mp4":
                return _info_of_file(bytes(value(0, value.length)))
            head = frame_value.read_head(value, value.length)
            return ClipInfo(
                frames=head.n_frames,
                height=head.height,
                width=head.width,
                fps=head.fps,
                times_ms=head.times_ms,
                codec=head.codec,
                bytes=value.length,
            )

    def _open(self) -> "OpenedStore":
        if self._opened is None or self._opened.pid != os.getpid():
            self._opened = OpenedStore(self.path, self._stamp)
        return self._opened

    @contextmanager
    def _naming(self, video_id: str) -> Iterator[None]:
        """Errors of a value, with its video and store."""
        try:
            yield
        except (ValueError, ItemError) as error:
            raise DataError(f"{video_id}: {error}", where=self.path, fix=REBUILD) from error


def _locate(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / name for name in (FILE_NAME, "data.mdb") if (path / name).exists()] or sorted(
        path.glob("*.lmdb")
    )
    if len(found) == 1 or (found and found[0].name == FILE_NAME):
        return found[0]
    what = (
        "the folder holds several LMDB files" if found else "there is no frame store in this folder"
    )
    if (path / f"{FILE_NAME}.partial").exists():
        what = "this frame store is not finished"
    raise DataError(
        what, where=path, fix="Run the frames step to its end, or give the path of one LMDB file."
    )


def _checked(indices: Sequence[int] | np.ndarray | None, n_frames: int) -> Sequence[int]:
    if indices is None:
        return range(n_frames)
    wanted = np.asarray(indices, dtype=np.int64).tolist()
    outside = [i for i in wanted if not 0 <= i < n_frames]
    if outside:
        raise ValueError(
            f"frame {outside[0]} was asked for, but it has {n_frames} frames (0 to {n_frames - 1})"
        )
    return wanted


def _decode_file(data: bytes, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
    from pipeline.video import reader as video

    if indices is None:
        return video.decode_clip(data, video.FrameChoice("all")).images
    return video.read_frames(data, np.asarray(indices, dtype=np.int64).tolist())


def _into(out: np.ndarray | None, frames: np.ndarray) -> np.ndarray:
    if out is None:
        return frames
    out[...] = frames
    return out


def _info_of_file(data: bytes) -> ClipInfo:
    from pipeline.video import reader as video

    found = video.probe(data)
    frames = found.frames or len(video.decode_clip(data, video.FrameChoice("all")).times_ms)
    return ClipInfo(
        frames=frames,
        height=found.height,
        width=found.width,
        fps=found.fps,
        times_ms=None,
        codec="container",
        bytes=len(data),
    )
