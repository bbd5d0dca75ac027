"""Video, Caption, Annotations: what every dataset reader returns, and the checks all of them
share.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import BaseModel

from pipeline import log, registry
from pipeline.core.artefact import Artefact
from pipeline.errors import DataError

ALL = "all"  # the split that holds every caption, unless a data set calls one so
SAFE_ID = re.compile(r"[A-Za-z0-9._@+-]+")  # ids from annotation files; anything else is reported


@dataclass(frozen=True)
class Video:
    """`path` is None when the annotations do not say where the file is. start, end: seconds within
    the file.

    `attributes`: what is known about the picture (the demo's colour, shape, ...); the report breaks
    results down by it.
    """

    id: str
    path: Path | None = None
    start: float | None = None
    end: float | None = None
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Caption:
    id: str
    video_id: str
    text: str


@dataclass(frozen=True)
class Split:
    """Captions that are queries, and the gallery they are ranked against; both in their published
    order.
    """

    caption_ids: list[str]
    video_ids: list[str]


@dataclass
class Annotations:
    """videos and captions by id, in file order. Splits are named train, val, test.

    notes: what the reader noticed that is no fault (ids without captions, layouts found, clips left
    out), a line each. origin: how the splits were made, in words.
    """

    videos: dict[str, Video]
    captions: dict[str, Caption]
    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)
    origin: str = "as published"

    def split(self, name: str) -> Split:
        """Return a split by its name; `all` is every one of them together, captions and videos
        once.

        Raises DataError for a name that no split has.
        """
        if name in self.splits:
            return self.splits[name]
        if name == ALL:
            parts = self.splits.values()
            return Split(
                list(dict.fromkeys(i for part in parts for i in part.caption_ids)),
                list(dict.fromkeys(i for part in parts for i in part.video_ids)),
            )
        raise DataError(
            f"there is no split {name!r}; there are {', '.join(self.splits) or 'none'}",
            where="annotations",
            fix=f"Name one of them, or {ALL} for every caption.",
        )

    def said(self, name: str) -> str:
        """Return a split in words: how many of all videos and captions, and how the split was
        made.
        """
        part = self.split(name)
        return (
            f"split {name}: {len(part.video_ids):,} of {len(self.videos):,} videos and"
            f" {len(part.caption_ids):,} of {len(self.captions):,} captions (splits {self.origin})"
        )

    def texts(self, split: str) -> list[Caption]:
        """Return the captions of a split, in order."""
        return [self.captions[i] for i in self.split(split).caption_ids]

    def targets(self, split: str) -> np.ndarray:
        """Gallery column of each caption's own video, int64 (N_t,). Several captions per video are
        the normal case.
        """
        part = self.split(split)
        column = {video_id: n for n, video_id in enumerate(part.video_ids)}
        return np.array(
            [column[self.captions[i].video_id] for i in part.caption_ids], dtype=np.int64
        )


@dataclass(frozen=True)
class ExpectedFile:
    """A file, or with <...> in its path a set of files, that somebody has to put into place.

    kind: the artefact it is part of (annotations, video_files). what: its meaning. source: where to
    get it. `found` of `wanted` are there; wanted is None while it is not known how many there
    should be. may_lack: some of them are enough.
    """

    path: Path
    kind: str
    what: str
    source: str
    found: int = 0
    wanted: int | None = 1
    may_lack: bool = False

    @property
    def is_missing(self) -> bool:
        return self.found < (1 if self.may_lack else self.wanted or 1)

    @property
    def status(self) -> str:
        if not self.found and (self.wanted or 1) > 1:
            return f"all {self.wanted:,} missing"
        if not self.found or self.wanted == 1:
            return "found" if self.found else "missing"
        return (
            f"{self.found:,} found"
            if self.wanted is None
            else f"{self.found:,} of {self.wanted:,} found"
        )

    def __str__(self) -> str:
        return f"{self.status}: {self.path} ({self.what}); from: {self.source}"


class Dataset:
    """Base of every reader. `pipeline/datasets/<type>.py` defines one subclass called `Dataset`."""

    class Options(BaseModel, extra="forbid"):
        root: Path

    # what words of its captions are made of: published sets keep A to Z alone, as published
    letters: ClassVar[Literal["ascii", "unicode"]] = "ascii"
    indifferent: ClassVar[frozenset[str]] = frozenset(
        {"root"}
    )  # where the files lie does not change what they say

    def __init__(self, options: BaseModel):
        self.options = options

    def load(self) -> Annotations:
        """Read and check everything. DataError lists every kind of fault with a count and 3
        examples.
        """
        raise TypeError(f"{type(self).__name__}.load is not defined")

    def digest(self) -> str:
        """Digest of the annotation files (not the videos)."""
        raise TypeError(f"{type(self).__name__}.digest is not defined")

    def expected_files(self) -> list[ExpectedFile]:
        """Return every file that somebody has to put into place, with its status; [] for a reader
        that needs none.
        """
        return []

    def published_counts(self) -> dict[str, tuple[int | None, int | None]]:
        """Return {split: (videos, texts)} of the published protocol under these options, or None
        where a figure is not known.
        """
        return {}


def load(annotations: Artefact) -> Annotations:
    """Return the annotations an artefact of kind "annotations" stands for; what the reader noticed
    is said once per command.
    """
    loaded = open_dataset(annotations.options).load()
    for note in loaded.notes:
        log.once(note)
    return loaded


def open_dataset(spec: dict) -> Dataset:
    """Return the dataset of {"type": name, <its options>}; ConfigError for an unknown type or
    option.
    """
    values = dict(spec)
    module = registry.find("dataset", values.pop("type"))
    return module.Dataset(
        registry.options(module.Dataset.Options, values, where=f"dataset {spec['type']}")
    )


class Faults:
    """Faults of an annotation set by kind; `raise_if_any` reports each kind with a count and three
    examples.
    """

    def __init__(self, where: object):
        self._where = where
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, example: str) -> None:
        self._found.setdefault(kind, []).append(example)

    def check_id(self, item_id: str, where: str) -> bool:
        """True if an id from an annotation file is safe to use; else a fault is noted."""
        if SAFE_ID.fullmatch(item_id) and item_id not in (".", ".."):
            return True
        self.add("id with characters outside A-Z a-z 0-9 . _ @ + -", f"{item_id!r:.80} ({where})")
        return False

    def __bool__(self) -> bool:
        return bool(self._found)

    def __len__(self) -> int:
        """Return how many faults there are, of all kinds together."""
        return sum(map(len, self._found.values()))

    @property
    def lines(self) -> list[str]:
        """A line for each kind, with its count and three examples."""
        return [
            f"{len(examples):,} x {kind}:"
            f" {'; '.join(examples[:3])}{' ...' if len(examples) > 3 else ''}"
            for kind, examples in self._found.items()
        ]

    def take(self, others: "Faults") -> None:
        """Add all faults of another collection."""
        for kind, examples in others._found.items():
            self._found.setdefault(kind, []).extend(examples)

    def raise_if_any(self, fix: str = "Correct the file and run the same command again.") -> None:
        if self._found:
            raise DataError("\n    ".join(self.lines), where=self._where, fix=fix)


def by_video(captions: Iterable[Caption]) -> dict[str, list[Caption]]:
    """Captions grouped by video, in order of first appearance."""
    groups: dict[str, list[Caption]] = {}
    for caption in captions:
        groups.setdefault(caption.video_id, []).append(caption)
    return groups
