"""Encodings that an evaluation keeps, so that the next one encodes only what is new.

    _state/encodings/<checkpoint>/<key>.npz   the encoding of one group of videos or captions

Items are encoded in groups. Where a group ends is decided by the items themselves, not by their
number: an added video or a changed caption changes its own group and no other. A group is encoded
as one batch whoever encodes it, so kept rows have the bytes of a fresh run.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from models.base import Encoding
from pipeline.arrays import read_npz, write_npz
from pipeline.core.artefact import Artefact
from pipeline.core.files import disk_name
from pipeline.core.state import STATE, digest, usable_records
from pipeline.datasets.parts.sources import video_sources
from pipeline.errors import DataError
from pipeline.feeding.corpus import Store, VideoStore
from pipeline.feeding.frame_choice import DRAWN
from pipeline.feeding.inputs import Given
from pipeline.recipes.options import FrameOptions

MEAN_VIDEOS, MEAN_TEXTS = 4, 16  # items of a group, on average
_FOLDER = "encodings"


def groups(keys: Sequence[bytes], mean: int, most: int) -> list[range]:
    """range(len(keys)) in parts of `mean` items on average and at most `most`.

    A part ends behind an item whose key says so, or where it is full.
    """
    found, start = [], 0
    for n, key in enumerate(keys):
        ends = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") % mean == 0
        if ends or n + 1 - start >= most or n + 1 == len(keys):
            found.append(range(start, n + 1))
            start = n + 1
    return found


@dataclass
class KeptEncodings:
    """The kept encodings of one checkpoint.

    base: what all of them depend on (weights, precision, device). of_video: digest of what the
    model reads of each video of the corpus, in its order. encoded: videos and texts that were
    encoded here, not read.
    """

    folder: Path
    base: bytes
    of_video: Sequence[bytes]
    encoded: dict[str, int] = field(default_factory=lambda: {"text": 0, "video": 0})
    reused: int = 0
    _used: set[str] = field(default_factory=set)

    def side(self, name: str, parts: Sequence[Sequence[int]], keys: Sequence[bytes]) -> "KeptSide":
        """Return what is kept of the groups `parts` of a side ("text" or "video"). keys: of the
        items.
        """
        side = KeptSide([], [], lambda where, rows: self._keep(name, names[tuple(where)], rows))
        names = {}
        for part in parts:
            key = b"\0".join([self.base, name.encode(), *(keys[n] for n in part)])
            names[tuple(part)] = file = hashlib.sha256(key).hexdigest()[:40] + ".npz"
            self._used.add(file)
            rows = self._read(file, len(part))
            if rows is None:
                side.missing.append(part)
                continue
            self.reused += len(part)
            side.ready.append((part, rows))
        return side

    def tidy(self) -> None:
        """Remove what no item of this evaluation has: its video or caption went."""
        for file in self.folder.glob("*.npz"):
            if file.name not in self._used:
                file.unlink(missing_ok=True)

    def _read(self, file: str, n: int) -> Encoding | None:
        """Return the rows, or None where there are none that can be used."""
        if not (self.folder / file).is_file():
            return None
        try:
            found = read_npz(self.folder / file)
        except DataError:
            return None
        if not found or any(len(rows) != n for rows in found.values()):
            return None
        return {name: torch.from_numpy(rows) for name, rows in found.items()}

    def _keep(self, side: str, file: str, rows: Encoding) -> None:
        self.encoded[side] += len(next(iter(rows.values())))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_npz(self.folder / file, {name: values.numpy() for name, values in rows.items()})


@dataclass(frozen=True)
class KeptSide:
    """ready: groups whose rows are kept. missing: groups to encode. keep(group, rows) keeps
    them.
    """

    ready: list[tuple[Sequence[int], Encoding]]
    missing: list[Sequence[int]]
    keep: Callable[[Sequence[int], Encoding], None]


def video_keys(
    store: VideoStore, given: Given, video_ids: Sequence[str], frames: FrameOptions
) -> list[bytes]:
    """Return a digest of what a model reads of each video: of features their numbers, else what the
    steps that made its frames say of it (of a store that no step of ours made: the whole of it).

    Random choices of frames belong to a place in the split, so that is part of it then.
    """
    if isinstance(store, Store):
        return [_of_array(store.read(video_id)) for video_id in video_ids]
    is_drawn = frames.evaluation in DRAWN or frames.evaluation_order == "shuffled"
    known = [_contents(made) for made in (given.tensors, given.store) if made is not None]
    if given.videos is not None:
        listed = video_sources(given.videos, given.digests).sources
        known.append(({source.id: source.key for source in listed}, ""))
    return [
        digest([[of.get(i, whole) for of, whole in known], i, n if is_drawn else 0]).encode()
        for n, i in enumerate(video_ids)
    ]


def _of_array(values: np.ndarray) -> bytes:
    found = hashlib.sha256(f"{values.dtype.str} {values.shape}".encode())
    found.update(np.ascontiguousarray(values))
    return found.digest()


def _contents(made: Artefact) -> tuple[dict[str, str], str]:
    """Digest of each video of a store, and the one of a video that is not listed."""
    records = usable_records(made.path)
    known = {record.id.removeprefix("frames/"): record.content for record in records}
    return known, "" if known else made.content


def folder_of(out: Path, checkpoint: str) -> Path:
    """Return where the encodings of a checkpoint are kept for results in `out`, or built in
    `out`/_new.
    """
    place = out.parent if out.name == "_new" else out
    return place / STATE / _FOLDER / disk_name(checkpoint)


def forget_others(out: Path, checkpoints: Sequence[str]) -> None:
    """Remove the encodings of checkpoints that are not evaluated any more."""
    wanted = {folder_of(out, name) for name in checkpoints}
    for folder in folder_of(out, "x").parent.glob("*"):
        if folder.is_dir() and not any(w == folder or folder in w.parents for w in wanted):
            shutil.rmtree(folder, ignore_errors=True)
