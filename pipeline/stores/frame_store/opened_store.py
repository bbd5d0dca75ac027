"""What one process holds of a frame store: keys, list of videos, values in the map or in payload
files.

`FrameStore` is the face of it. Layouts and placements: docs/specs/preprocessing.md, sections 5.2,
5.5.
"""

import hashlib
import json
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.datasets.parts.video_marks import VIDEO_SUFFIXES
from pipeline.errors import DataError
from pipeline.stores.frame_store import frame_value, lmdb_file
from pipeline.stores.frame_store.frame_value import Buffer

Layout = Literal["tvs1", "mp4"]
Placement = Literal["inline", "pack"]

FILE_NAME = "frames.lmdb"
META, IDS = b"__meta__", b"__ids__"
PACKED = struct.Struct("<IQQI")  # shard, offset, length, CRC-32 of the value
_LONGEST_ID = 480  # LMDB keys end at 511 bytes
REBUILD = "Build the store again: python cli.py frames --force ..."


def key_of(video_id: str) -> bytes:
    """Return the key of a video in the layout "tvs1"; beyond 480 bytes a digest of the id."""
    name = video_id.encode("utf-8", "surrogateescape")
    if len(name) <= _LONGEST_ID:
        return b"v/" + name
    return b"h/" + hashlib.blake2b(name, digest_size=32).hexdigest().encode()


def pack_name(shard: int) -> str:
    return f"frames-{shard}.bin"


class OpenedStore:
    """What a FrameStore holds in one process."""

    def __init__(self, path: Path, stamp: lmdb_file.Stamp | None):
        self.pid, self._path = os.getpid(), path
        self._environment = lmdb_file.open_shared(path, stamp)
        self._whole: set[str] = set()  # ids whose checksum held in this process
        with self._environment.lmdb.begin() as txn:
            self.meta = _read_meta(path, txn.get(META)) if txn.get(META) else {}
            self.layout: Layout = "tvs1" if self.meta else "mp4"
            self.placement: Placement = self.meta.get("placement", "inline")
            if self.layout == "tvs1":
                self.ids = _read_ids(path, txn.get(IDS))
                self._keys = {video_id: key_of(video_id) for video_id in self.ids}
            else:
                self._keys = _published_keys(
                    path, list(txn.cursor().iternext(keys=True, values=False))
                )
                self.ids = list(self._keys)
        self._packs = [
            _open_pack(path.parent / pack_name(shard), size)
            for shard, size in enumerate(self.meta.get("packs", []))
        ]

    def __del__(self) -> None:
        for file in getattr(self, "_packs", []):
            os.close(file)

    def has(self, video_id: str) -> bool:
        return self._key(video_id) is not None

    def _key(self, video_id: str) -> bytes | None:
        key = self._keys.get(video_id)
        if key is None and self.layout == "mp4":  # published code looks up the base name of a path
            key = self._keys.get(video_id.rpartition("/")[2])
        return key

    @contextmanager
    def value(self, video_id: str, checked: bool = True) -> Iterator["Value"]:
        """The stored value, valid inside the `with` only. The first time in a process its checksum
        is compared.
        """
        key = self._key(video_id)
        if key is None:
            raise KeyError(
                f"{self._path}: there is no video {video_id!r} ({len(self.ids):,} videos)"
            )
        self._environment.expect_whole(self._path)
        with self._environment.lmdb.begin(buffers=True) as txn:
            entry = txn.get(key)
            if entry is None:
                raise KeyError(
                    f"{self._path}: video {video_id!r} is listed, but its value is missing"
                )
            value = (
                self._packed(video_id, entry)
                if self.placement == "pack"
                else Value(entry, len(entry))
            )
            if checked and self.layout == "tvs1" and video_id not in self._whole:
                if not value.is_whole():
                    raise DataError(
                        f"{video_id}: the checksum does not match", where=self._path, fix=REBUILD
                    )
                self._whole.add(video_id)
            yield value

    def _packed(self, video_id: str, entry: Buffer) -> "Value":
        shard, offset, length, crc = (
            PACKED.unpack(entry) if len(entry) == PACKED.size else (len(self._packs), 0, 0, 0)
        )
        if shard >= len(self._packs) or offset + length > self.meta["packs"][shard]:
            raise DataError(
                f"{video_id}: its entry points outside the payload", where=self._path, fix=REBUILD
            )
        return _PackedValue(self._packs[shard], offset, length, crc)


class Value:
    """A value inside the map."""

    def __init__(self, view: Buffer, length: int):
        self._view, self.length = view, length

    def __call__(self, start: int, length: int) -> Buffer:
        return self._view[start : start + length]

    def is_whole(self) -> bool:
        return frame_value.checksum_holds(self._view)


class _PackedValue(Value):
    """A value in a payload file, read with pread: only what is asked for."""

    def __init__(self, file: int, offset: int, length: int, crc: int):
        self._file = file
        self._offset = offset
        self.length = length
        self._crc = crc

    def __call__(self, start: int, length: int) -> Buffer:
        data = os.pread(self._file, length, self._offset + start)
        if len(data) != length:
            raise ValueError("the payload file ends before the value does")
        return data

    def is_whole(self) -> bool:
        return zlib.crc32(self(0, self.length)) == self._crc


def _open_pack(path: Path, size: int) -> int:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(
            f"a part of the frame store: {error.strerror}", where=path, fix=REBUILD
        ) from None
    found = os.fstat(file).st_size
    if found != size:
        os.close(file)
        raise DataError(
            f"the file has {found:,} bytes, the store wrote {size:,}", where=path, fix=REBUILD
        )
    return file


def _read_meta(path: Path, data: bytes) -> dict:
    meta = _json(data)
    sound = (
        isinstance(meta, dict)
        and meta.get("schema") == "tvs1"
        and meta.get("placement") in ("inline", "pack")
    )
    if not sound or not all(type(size) is int for size in meta.get("packs", [])):
        raise DataError(
            "what it says about itself is not that of a tvs1 store", where=path, fix=REBUILD
        )
    return meta


def _read_ids(path: Path, data: bytes | None) -> list[str]:
    ids = _json(data or b"")
    if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
        raise DataError("its list of videos is damaged", where=path, fix=REBUILD)
    return ids


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _published_keys(path: Path, keys: list[bytes]) -> dict[str, bytes]:
    """Return {id: key} of the published layout: the id is the base name without its extension,
    unless two would be equal.
    """
    if any(key[:2] in (b"v/", b"h/", b"j/") for key in keys):
        raise DataError(
            "this frame store is not finished", where=path, fix="Run the frames step to its end."
        )
    names = [key.decode("utf-8", "surrogateescape") for key in keys]
    foreign = [
        name
        for name in names
        if PurePosixPath(name).suffix.lower() not in VIDEO_SUFFIXES or "/" in name
    ]
    if foreign or not names:
        what = (
            f"its key {foreign[0][:80]!r} is no name of a video file" if foreign else "it is empty"
        )
        raise DataError(
            f"this LMDB file is not a frame store: {what}",
            where=path,
            fix="Give the path of a frame store.",
        )
    stems = [PurePosixPath(name).stem for name in names]
    count = Counter(stems)
    return {
        name if count[stem] > 1 else stem: key
        for name, stem, key in zip(names, stems, keys, strict=True)
    }
