"""Compress videos to small H.264 files without sound.

    python cli.py compress --in raw --out small --fps 3 --short-side 224

A damaged file gives the part of it that decodes. A file that cannot be used is set aside with the
reason.

Source: docs/specs/preprocessing.md, sections 3 and 4.
"""

from collections.abc import Iterable

from pipeline.core import stage
from pipeline.core.files import disk_name
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import STATE, Record
from pipeline.datasets.parts.sources import Source, unusable, video_sources
from pipeline.video.compress import Options, compress, time_limit


class Stage(stage.Stage):
    needs = {"videos": Need("video_files", help="folder of videos, or a dataset")}
    makes = "video_files"
    runs = "workers"
    store = "files"
    watches_inputs = True
    indifferent = frozenset({"verify"})
    Options = Options

    _ignored = 0

    def items(self) -> Iterable[Item]:
        listing = video_sources(self.inputs["videos"], cache=self.out / STATE / "digests.jsonl")
        self._ignored = listing.ignored
        return [Item(s.id, s.key, payload=s, source=str(s.path)) for s in listing.sources]

    def timeout(self, item: Item) -> float:
        source: Source = item.payload
        return time_limit(0 if source.problem else source.path.stat().st_size, self.options)

    def process(self, item: Item) -> Outcome:
        source: Source = item.payload
        if source.problem:
            raise unusable(source.problem, "io_error")
        return compress(
            source.path, self.out, disk_name(item.id, ".mp4"), self.options, source.moment
        )

    def finish(self, records: list[Record]) -> dict:
        return {
            "videos": len(records),
            "damaged": sum(record.status == "damaged" for record in records),
            "ignored_files": self._ignored,
            "frames": sum(record.facts["frames"] for record in records),
            "seconds": round(sum(record.facts["seconds"] for record in records), 3),
        }
