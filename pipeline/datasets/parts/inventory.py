"""Annotations against the files on disk and against the published protocol: what is missing, too
much, or not right.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import log
from pipeline.core.state import Record
from pipeline.datasets.base import Annotations, Dataset

EXAMPLES = 3
KINDS = {
    "missing": "videos of the annotations that have no file",
    "extra": "files that no caption is about",
    "same_name": "files whose name another file of the folder has, in another place or format",
    "zero_length": "files of 0 bytes",
    "unreadable": "files that cannot be used",
    "damaged": "files of which a part is lost",
    "duplicate": "files with the same bytes as another one",
    "wrong_fps": "files with another frame rate than asked for",
    "wrong_size": "files with another short side than asked for",
    "protocol": "splits whose counts are not the published ones",
}
Published = Mapping[str, tuple[int | None, int | None]]  # {split: (videos, texts)}


@dataclass(frozen=True)
class Expected:
    """What every file should be; None: anything. fast: only its first frame counts. short_side:
    pixels.
    """

    fast: bool = False
    fps: float | None = None
    short_side: int | None = None


@dataclass
class Inventory:
    """faults: {kind: one line per fault}, kinds in the order of KINDS, only those found. splits:
    counts by split.
    """

    videos: int
    files: int
    splits: dict[str, dict] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def wrong(self, allowed: Iterable[str] = ()) -> list[str]:
        """Return the kinds that were found and are not allowed."""
        return [kind for kind in self.faults if kind not in set(allowed)]

    def to_json(self) -> dict:
        """Plain values, all faults in full."""
        faults = {
            kind: {"what": KINDS[kind], "count": len(lines), "items": lines}
            for kind, lines in self.faults.items()
        }
        return {
            "videos": self.videos,
            "files": self.files,
            "splits": self.splits,
            "faults": faults,
            "notes": self.notes,
        }


def take(
    annotations: Annotations, records: list[Record], published: Published, expected: Expected
) -> Inventory:
    """Compare. `records`: of the probe stage, failed ones included."""
    by_source = {record.source: record for record in records}
    names = _names(records)
    files = {
        video.id: _record_of(video.id, video.path, by_source, names)
        for video in annotations.videos.values()
    }
    used = {id(record) for record in files.values() if record}
    found: dict[str, list[str]] = {
        "missing": [video_id for video_id, record in files.items() if record is None],
        "extra": [record.source for record in records if id(record) not in used],
        "same_name": [_same_name(same) for same in names.values() if len(same) > 1],
        "duplicate": _duplicates(records),
    }
    for record in records:
        for kind, line in _judge(record, expected):
            found.setdefault(kind, []).append(line)
    inventory = Inventory(len(files), len(records), notes=[*annotations.notes, *_pictures(records)])
    for name, split in annotations.splits.items():
        there = sum(files.get(video_id) is not None for video_id in split.video_ids)
        counts = {"texts": len(split.caption_ids), "videos": len(split.video_ids), "files": there}
        inventory.splits[name], line = _against(name, counts, published.get(name))
        found.setdefault("protocol", []).extend(line)
    inventory.faults = {kind: lines for kind in KINDS if (lines := found.get(kind))}
    return inventory


def video_folder(dataset: Dataset) -> Path:
    """Return where the files of a dataset lie: the `video_folder` of its reader, else its root."""
    return Path(getattr(dataset, "video_folder", None) or dataset.options.root)


def _names(records: list[Record]) -> dict[str, list[Record]]:
    """Records by id and by file name without suffix."""
    names: dict[str, list[Record]] = {}
    for record in records:
        name = record.source.rpartition("/")[2]
        names.setdefault(name.rpartition(".")[0] or name, []).append(record)
    for record in records:
        names.setdefault(record.id, [record])
    return names


def _record_of(
    video_id: str, path: Path | None, by_source: dict[str, Record], names: dict[str, list[Record]]
) -> Record | None:
    """Return the file of a video: the one its reader names, else the first with its id as name."""
    if path is not None:
        return by_source.get(str(path))
    return next(iter(names.get(video_id, [])), None)


def _same_name(records: list[Record]) -> str:
    return " and ".join(record.source for record in records)


def _pictures(records: list[Record]) -> list[str]:
    """Return a line for each thing that is said of the pictures of sound files: HDR, a change of
    size.
    """
    said: dict[str, list[str]] = {}
    for record in records:
        if record.status == "ok" and record.message:
            said.setdefault(record.message, []).append(record.id)
    return [
        f"{message}: {len(ids):,} files{log.names(ids[:EXAMPLES], len(ids))}"
        for message, ids in said.items()
    ]


def _duplicates(records: list[Record]) -> list[str]:
    by_digest: dict[str, list[Record]] = {}
    for record in records:
        if digest := record.facts.get("sha256"):
            by_digest.setdefault(digest, []).append(record)
    return [
        f"{record.id} has the bytes of {same[0].id} ({record.source})"
        for same in by_digest.values()
        for record in same[1:]
        if record.source != same[0].source
    ]


def _judge(record: Record, expected: Expected) -> Iterable[tuple[str, str]]:
    """Yield (kind, line) of what is wrong with one file."""
    where = f"({record.source})"
    if not record.usable:
        kind = "zero_length" if record.reason == "empty" else "unreadable"
        yield kind, f"{record.id}: {record.reason}: {record.message} {where}"
        return
    if record.status == "damaged":
        yield "damaged", f"{record.id}: {record.reason}: {record.message} {where}"
    facts = record.facts
    if expected.fps is not None and abs(facts["fps"] - expected.fps) > 0.01:
        yield (
            "wrong_fps",
            f"{record.id}: {facts['fps']:g} instead of {expected.fps:g} frames per second {where}",
        )
    short = min(facts["width"], facts["height"])
    if expected.short_side is not None and short != expected.short_side:
        size = f"{facts['width']}x{facts['height']}"
        yield (
            "wrong_size",
            f"{record.id}: {size}, short side {short} instead of {expected.short_side} {where}",
        )


def _against(
    name: str, counts: dict, published: tuple[int | None, int | None] | None
) -> tuple[dict, list[str]]:
    """Return the counts of a split with the published ones, and a line if they differ."""
    videos, texts = published or (None, None)
    differs = [
        f"{counts[what]:,} {what} instead of {wanted:,}"
        for what, wanted in (("videos", videos), ("texts", texts))
        if wanted is not None and counts[what] != wanted
    ]
    known = {"videos": videos, "texts": texts} if published else None
    return counts | {"published": known}, [f"{name}: {', '.join(differs)}"] if differs else []
