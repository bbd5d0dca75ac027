"""Decode every video and note its frames, size and digest.

Decoding every frame is the only way to find truncated and corrupted files; `fast` decodes the first
frame only. A video is not decoded again while its file stays the same (size, times, inode). The
`check` command compares these notes with the annotations.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from pipeline.core import stage
from pipeline.core.artefact import Artefact
from pipeline.core.files import file_digest
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import Record, read_manifest
from pipeline.datasets import base
from pipeline.datasets.parts.sources import list_folder
from pipeline.errors import DataError, ItemError
from pipeline.video.compress import mark, time_limit
from pipeline.video.frame_rule import FrameChoice, Limits


class Options(Limits):
    fast: bool = Field(
        False, description="decode only the first frame, and compare only files of equal size"
    )


@dataclass(frozen=True)
class _File:
    """bytes: -1 when the file cannot be looked at (`problem` says why). has_twin: another file has
    as many bytes.
    """

    path: Path
    bytes: int
    problem: str = ""
    has_twin: bool = False


class Stage(stage.Stage):
    needs = {
        "videos": Need("video_files", help="folder of videos, a dataset, or --out of compress")
    }
    makes = "report"
    runs = "workers"
    store = "files"
    flush_items = 16
    Options = Options

    def items(self) -> Iterable[Item]:
        found = [(item_id, *_look(path)) for item_id, path in video_paths(self.inputs["videos"])]
        sizes = Counter(file.bytes for _, file, _ in found)
        for item_id, file, state in found:
            has_twin = sizes[file.bytes] > 1
            # in fast mode a digest is taken only where it can tell two files apart
            key = f"{state} {'+' if has_twin and self.options.fast else ''}"
            yield Item(
                item_id, key, _File(file.path, file.bytes, file.problem, has_twin), str(file.path)
            )

    def timeout(self, item: Item) -> float:
        return time_limit(max(0, item.payload.bytes), self.options)

    def process(self, item: Item) -> Outcome:
        file: _File = item.payload
        if file.problem:
            raise ItemError("io_error", f"cannot be read: {file.problem}")
        before = mark(file.path)
        outcome = self._examined(file.path)
        if file.has_twin or not self.options.fast:
            outcome.facts["sha256"] = file_digest(file.path)
        if mark(file.path) != before:
            raise ItemError("io_error", "the file changed while it was read")
        return outcome

    def _examined(self, path: Path) -> Outcome:
        from pipeline.video.reader import iterate_clip, probe

        info = probe(path)
        facts = {
            "frames": info.frames,
            "fps": round(float(info.fps), 4),
            "seconds": round(info.seconds, 3),
            "width": info.width,
            "height": info.height,
            "codec": info.codec,
        }
        if self.options.fast:
            return Outcome(facts=facts)
        reader = iterate_clip(path, FrameChoice("all"), limits=self.options)
        shaper = None
        for chosen in reader.chosen():
            shaper = shaper or reader.shaper(chosen.frame)
            shaper.note(chosen.frame)
        return Outcome.of(reader, None, facts | {"frames": reader.decoded})

    def finish(self, records: list[Record]) -> dict:
        return {
            "videos": len(records),
            "damaged": sum(record.status == "damaged" for record in records),
            "seconds": round(sum(record.facts["seconds"] for record in records), 3),
        }


def video_paths(artefact: Artefact) -> list[tuple[str, Path]]:
    """Return (id, path) of every file of an artefact of kind "video_files". DataError if its folder
    is missing.
    """
    if artefact.step == "dataset":
        return [(v.id, v.path) for v in base.load(artefact).videos.values() if v.path is not None]
    if read_manifest(artefact.path) is not None:
        return [
            (record.id, artefact.path / name)
            for record in artefact.records()
            for name in record.outputs
        ]
    if not artefact.path.is_dir():
        raise DataError(
            "there is no such folder",
            where=artefact.path,
            fix="Give the folder that holds the videos.",
        )
    return list_folder(artefact.path)


def _look(path: Path) -> tuple[_File, str]:
    """Return a file, and what stays the same as long as the file does."""
    try:
        facts = path.stat()
    except OSError as error:
        return _File(path, -1, str(error.strerror)), f"unreadable {error.strerror}"
    return (
        _File(path, facts.st_size),
        f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}",
    )
