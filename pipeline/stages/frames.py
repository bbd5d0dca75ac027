"""Store the frames of videos in one LMDB file for training.

    python cli.py frames --in small --out frames

With --direct it reads the original videos, so that pictures are compressed once, not twice.

Source: docs/specs/preprocessing.md, section 5.
"""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.core.manifest import effective_options
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.stage import Stage as Base
from pipeline.core.state import STATE, Record
from pipeline.datasets.parts.sources import Source, unusable, video_sources
from pipeline.errors import DataError, ItemError
from pipeline.stores.kinds import is_video_lmdb
from pipeline.video.crop import center_crop
from pipeline.video.frame_rule import FrameChoice, Limits, SizeRule

if TYPE_CHECKING:
    from pipeline.stores.frame_store.reader import FrameStore
    from pipeline.stores.frame_store.writer import FrameStoreWriter

# bytes in the store per byte of a compressed video (measured, docs/specs/preprocessing.md, section
# 5.1); a guess for originals
_GROWTH = {"jpeg": 2, "raw": 26, "yuv": 13, "mp4": 1}
_LARGEST_SIDE = 65_535


class Options(Limits):
    direct: bool = Field(
        False,
        description="choose and scale frames of the original videos",
    )
    fps: float = Field(3, gt=0, le=240, description="frames per second (direct)")
    short_side: int = Field(224, ge=16, le=4096, description="pixels of the shorter side (direct)")
    frame_rule: Literal["grid", "published", "published-vfr"] = Field(
        "grid",
        description=(
            "grid: frames at k/fps; published, published-vfr: those of `ffmpeg -r` (direct)"
        ),
    )
    size_rule: Literal["short", "clip4clip"] = Field(
        "short",
        description="as in compress (direct)",
    )
    layout: Literal["jpeg", "raw", "yuv", "mp4"] = Field(
        "jpeg",
        description=("jpeg, raw (RGB), yuv (4:2:0): each frame; mp4: whole files, as published"),
    )
    quality: int = Field(90, ge=1, le=100, description="JPEG quality")
    crop: Literal["none", "center"] = Field(
        "none", description="center: keep only the central square"
    )
    placement: Literal["inline", "pack"] = Field(
        "inline",
        description=("pack: pictures beside the LMDB file, for sets larger than memory"),
    )

    @model_validator(mode="after")
    def _files_stay_whole(self) -> "Options":
        if self.layout == "mp4" and (
            self.direct or self.crop != "none" or self.placement != "inline"
        ):
            raise ValueError(
                "layout mp4 stores files as they are, so it cannot be combined with direct,"
                " crop or pack"
            )
        return self


class Stage(Base):
    needs = {
        "videos": Need(
            "video_files", help="folder of videos, --out of compress, or an LMDB of videos"
        )
    }
    makes = "frame_store"
    runs = "workers"
    store = "single"
    watches_inputs = True
    flush_items = 256
    Options = Options

    def items(self) -> Iterable[Item]:
        sources = self._sources
        names = [
            _file_name(source) if self.options.layout == "mp4" else source.id for source in sources
        ]
        _expect_unique(names, sources, self.inputs["videos"].path)
        for source, name in zip(sources, names, strict=True):
            yield Item(source.id, source.key, (source, name), str(source.path))

    def process(self, item: Item) -> Outcome:
        source, name = item.payload
        if source.problem:
            raise unusable(source.problem, "unreadable")
        if self.options.layout == "mp4":
            return _whole_file(source, name)
        return self._encode(item.id, source)

    def open(self, records: list[Record]) -> list[Record]:
        return self._writer.open(records, self.items)

    def reuse(self, item: Item, record: Record, folder: Path) -> Outcome:
        value = self._finished_store(folder).bytes(item.id)
        return Outcome.of(record, value, record.facts)

    def commit(self, item: Item, outcome: Outcome, record: Record) -> None:
        self._writer.put(outcome.value, record)

    def flush(self) -> dict[str, Outcome | ItemError]:
        self._writer.flush()
        return {}

    def finish(self, records: list[Record]) -> dict:
        return self._writer.finish(records)

    def files(self) -> list[Path]:
        from pipeline.stores.frame_store.opened_store import FILE_NAME
        from pipeline.stores.frame_store.pack_writer import pack_files

        return [self.out / FILE_NAME, *pack_files(self.out)]

    def close(self) -> None:
        if "_writer" in self.__dict__:
            self._writer.close()
        self._lent.clear()

    def estimate(self) -> str:
        return f"about {self._expected_bytes / 1e6:,.0f} MB for {len(self._sources):,} videos"

    @cached_property
    def _sources(self) -> list[Source]:
        videos = self.inputs["videos"]
        if not is_video_lmdb(videos):
            return video_sources(videos, self.out / STATE / "digests.jsonl").sources
        if self.options.layout == "mp4":
            raise DataError(
                "this is an LMDB of whole videos already",
                where=videos.path,
                fix=(
                    f"Read it as it is (python cli.py train --store {videos.path} ...), or choose"
                    " another --layout (in a pipeline: layout of the step)."
                ),
            )
        store = self._finished_store(videos.path)
        found = [(i, hashlib.sha256(store.bytes(i)).hexdigest()) for i in sorted(store.ids)]
        return [Source(video_id, videos.path, key) for video_id, key in found]

    @property
    def _expected_bytes(self) -> int:
        files = {source.path for source in self._sources if not source.problem}
        return _GROWTH[self.options.layout] * sum(path.stat().st_size for path in files)

    @cached_property
    def _writer(self) -> "FrameStoreWriter":
        from pipeline.stores.frame_store.writer import FrameStoreWriter

        return FrameStoreWriter(
            self.out,
            layout="mp4" if self.options.layout == "mp4" else "tvs1",
            placement=self.options.placement,
            details={"codec": self.options.layout, "options": effective_options(self)},
            expected_bytes=self._expected_bytes,
        )

    @cached_property
    def _lent(self) -> dict[Path, "FrameStore"]:
        return {}

    def _finished_store(self, folder: Path) -> "FrameStore":
        from pipeline.stores.frame_store.reader import FrameStore

        if folder not in self._lent:
            self._lent[folder] = FrameStore.open(folder)
        return self._lent[folder]

    def _encode(self, video_id: str, source: Source) -> Outcome:
        """Decode, choose, scale, crop, encode: one frame in memory at a time."""
        from pipeline.stores.frame_store.frame_value import encode_frame, encode_value
        from pipeline.video.reader import iterate_clip

        options = self.options
        media = source.path
        if is_video_lmdb(self.inputs["videos"]):
            media = self._finished_store(source.path).bytes(source.id)
        reader = iterate_clip(media, *self._choice(), options, source.moment)
        pieces: list[bytes] = []
        times: list[int] = []
        height = width = 0
        for frame in reader:
            image = _cropped(frame.image, options.crop)
            height, width = image.shape[:2]
            if max(height, width) > _LARGEST_SIDE:
                raise ItemError(
                    "too_large",
                    f"{width}x{height}; a side of a stored frame has at most {_LARGEST_SIDE}",
                )
            pieces += [encode_frame(image, options.layout, options.quality)] * frame.repeats
            times += [frame.time_ms] * frame.repeats
        if not pieces:
            raise ItemError("no_frames", "no frame decodes")
        value = encode_value(
            video_id,
            pieces,
            times,
            codec=options.layout,
            height=height,
            width=width,
            fps=reader.fps,
        )
        facts = {"frames": len(pieces), "height": height, "width": width, "bytes": len(value)}
        return Outcome.of(reader, value, facts)

    def _choice(self) -> tuple[FrameChoice, SizeRule | None]:
        if not self.options.direct:
            return FrameChoice("all"), None
        choice = FrameChoice.at(self.options.fps, self.options.frame_rule)
        return choice, SizeRule(self.options.size_rule, self.options.short_side)


def _cropped(image: np.ndarray, crop: str) -> np.ndarray:
    return image if crop == "none" else center_crop(image[None], min(image.shape[:2]))[0]


def _whole_file(source: Source, name: str) -> Outcome:
    from pipeline.video.reader import probe

    if source.moment and source.moment.start:
        raise ItemError(
            "bad_value", "this item is a part of a film, but layout mp4 stores whole files"
        )
    data = source.path.read_bytes()
    info = probe(data)
    facts = {
        "name": name,
        "frames": info.frames or 0,
        "height": info.height,
        "width": info.width,
        "bytes": len(data),
    }
    return Outcome(value=data, facts=facts)


def _file_name(source: Source) -> str:
    """Return the key of the published layout: the base name of the video with its extension."""
    name = source.id.rpartition("/")[2]
    return name if name.endswith(source.path.suffix) else name + source.path.suffix


def _expect_unique(names: list[str], sources: list[Source], where: Path) -> None:
    first: dict[str, str] = {}
    pairs = [
        f"{first[name]} and {source.id}"
        for name, source in zip(names, sources, strict=True)
        if first.setdefault(name, source.id) != source.id
    ]
    if pairs:
        raise DataError(
            f"{len(pairs):,} pairs of videos have the same base name: {'; '.join(pairs[:3])}",
            where=where,
            fix=(
                "The published layout knows base names only. Rename them, or set layout to jpeg."
                " Nothing was written."
            ),
        )
