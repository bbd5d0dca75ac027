"""Cache frames or features in files that training maps.

    python cli.py tensors --store frames --frames '{size: 224}' --out tensors

Each kind has a cache of its own, in frames/ and features/: uint8 (T, S, S, 3) as decoders deliver
it, or float rows (T, F). A frame of 224 pixels takes 150,528 bytes: the estimate is printed first,
and a cache that does not fit on the disk is refused.
"""

import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from pipeline import log
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.stage import Stage as Base
from pipeline.core.state import STATE, Record
from pipeline.errors import ConfigError, ItemError, SystemRefused
from pipeline.stores.tensor_cache.reader import TensorCache
from pipeline.stores.tensor_cache.tensor_inputs import (
    FeatureInput,
    FeaturesOptions,
    FrameInput,
    FramesOptions,
)
from pipeline.stores.tensor_cache.writer import PART_ITEMS, TensorCacheWriter

Kind = Literal["frames", "features"]


class Options(BaseModel, extra="forbid"):
    frames: FramesOptions | None = Field(
        None,
        description=(
            "cache frames of a frame store or of videos: {size, ...}; {} for the defaults"
        ),
    )
    features: FeaturesOptions | None = Field(
        None, description=("cache features of a BigFile: {} for the defaults")
    )


class Stage(Base):
    needs = {
        "store": Need("frame_store", optional=True, help="frame store whose frames are cached"),
        "bigfile": Need("features", optional=True, help="BigFile whose features are cached"),
        "videos": Need(
            "video_files",
            optional=True,
            auto=False,
            help="videos to decode, if there is no frame store",
        ),
    }
    makes = "tensors"
    store = "single"
    watches_inputs = True
    flush_items = PART_ITEMS
    flush_anywhere = False
    Options = Options

    @classmethod
    def wanted(cls, options: Options) -> dict[str, Need]:
        kinds = {"store": options.frames, "videos": options.frames, "bigfile": options.features}
        return {need: spec for need, spec in cls.needs.items() if kinds[need] is not None}

    @classmethod
    def mistakes(cls, options: Options, given: dict[str, list[str]] | None) -> list[str]:
        """Something is to be cached, and an input provides it."""
        anything = given is None  # what provides it is not known then
        given = given or {}
        frames, features = given.get("store") or given.get("videos"), given.get("bigfile")
        try:
            _check(options, anything or frames, anything or features)
        except ConfigError as error:
            return [str(error)]
        return []

    @cached_property
    def runs(self) -> Literal["workers", "inline"]:
        """Video files are decoded in supervised workers. JPEGs and rows are read in the parent: a
        worker would spend as much on sending the array back, and its memory limit has no room for
        the map of a large store.
        """
        return "workers" if any(part.holds_videos for part in self._parts.values()) else "inline"

    def items(self) -> Iterable[Item]:
        for kind, part in self._parts.items():
            for video_id, key, source in part.videos:
                yield Item(
                    f"{kind}/{video_id}",
                    key,
                    (kind, video_id, source),
                    str(source.path) if source else "",
                )

    def process(self, item: Item) -> Outcome:
        kind, video_id, source = item.payload
        outcome = self._parts[kind].load(video_id, source)
        outcome.facts |= {"rows": len(outcome.value), "bytes": outcome.value.nbytes}
        return outcome

    def open(self, records: list[Record]) -> list[Record]:
        log.info(f"{'tensors':<20} {self.estimate()}")
        usable = [record.id for record in records if record.usable]
        self._expect_room(sum(record.facts["bytes"] for record in records if record.usable))
        for kind, writer in self._writers.items():
            prefix = f"{kind}/"
            writer.open(
                {i.removeprefix(prefix): self._positions[i] for i in usable if i.startswith(prefix)}
            )
        return []

    def reuse(self, item: Item, record: Record, folder: Path) -> Outcome:
        kind, video_id, _ = item.payload
        array = self._finished_cache(folder / kind)[video_id]
        return Outcome(
            status=record.status,
            value=array,
            outputs={},
            facts=record.facts,
            reason=record.reason,
            message=record.message,
        )

    def commit(self, item: Item, outcome: Outcome, record: Record) -> None:
        kind, video_id, _ = item.payload
        self._writers[kind].put(video_id, self._positions[item.id], outcome.value)

    def flush(self) -> dict[str, Outcome | ItemError]:
        for writer in self._writers.values():
            writer.flush()
        return {}

    def finish(self, records: list[Record]) -> dict:
        for kind in {
            "frames",
            "features",
        } - self._writers.keys():  # of an earlier generation with other options
            for folder in (self.out / kind, self.out / f"{kind}.partial"):
                shutil.rmtree(folder, ignore_errors=True)
        return {kind: writer.finish() for kind, writer in self._writers.items()}

    def files(self) -> list[Path]:
        folders = (self.out / kind for kind in self._parts)
        return sorted(path for folder in folders for path in folder.iterdir())

    def input_name(self, item_id: str) -> str:
        return item_id.partition("/")[2]  # a video may be cached as frames, as features, or both

    def close(self) -> None:
        if "_writers" in self.__dict__:
            for writer in self._writers.values():
                writer.close()
        self._lent.clear()

    def estimate(self) -> str:
        sizes = [f"{kind} {part.n_bytes / 1e6:,.0f} MB" for kind, part in self._parts.items()]
        return f"needs {', '.join(sizes)} on disk; {_free(self.out) / 1e6:,.0f} MB are free"

    @cached_property
    def _parts(self) -> dict[Kind, FrameInput | FeatureInput]:
        """What to cache, by kind. ConfigError if nothing is asked for or its input is not there."""
        store = self.inputs.get("store")
        features = self.inputs.get("bigfile")
        videos = self.inputs.get("videos")
        digests = self.out / STATE / "digests.jsonl"
        wanted, parts = self.options, {}
        _check(wanted, store or videos, features)
        if wanted.frames is not None:
            parts["frames"] = FrameInput(store, videos, wanted.frames, digests)
        if wanted.features is not None:
            parts["features"] = FeatureInput(features, wanted.features, digests)
        return parts

    def _expect_room(self, kept: int) -> None:
        needed, free = sum(part.n_bytes for part in self._parts.values()) - kept, _free(self.out)
        if needed > free:
            raise SystemRefused(
                f"the disk cannot hold the cache: {needed:,} bytes needed, {free:,} free",
                where=self.out,
                fix=(
                    "Free space, choose another folder, or set frames.max_frames or a smaller"
                    " frames.size."
                ),
            )

    @cached_property
    def _positions(self) -> dict[str, int]:
        """Place of each item among those of its kind."""
        return {
            f"{kind}/{v.video_id}": n
            for kind, part in self._parts.items()
            for n, v in enumerate(part.videos)
        }

    @cached_property
    def _writers(self) -> dict[Kind, TensorCacheWriter]:
        return {
            kind: TensorCacheWriter(
                self.out / kind, kind, getattr(self.options, kind).model_dump(mode="json")
            )
            for kind in self._parts
        }

    @cached_property
    def _lent(self) -> dict[Path, TensorCache]:
        return {}

    def _finished_cache(self, folder: Path) -> TensorCache:
        if folder not in self._lent:
            self._lent[folder] = TensorCache.open(folder)
        return self._lent[folder]


def _check(options: Options, frames: object, features: object) -> None:
    """Raise ConfigError if nothing is asked for, or its input (None or empty) is not there."""
    if options.frames is None and options.features is None:
        raise ConfigError(
            "nothing to cache",
            where="tensors",
            fix="Set frames: {}, features: {}, or both.",
        )
    if options.frames is not None:
        _expect("frames", frames)
    if options.features is not None:
        _expect("features", features)


def _expect(kind: Kind, given: object) -> None:
    if not given:
        raise ConfigError(
            f"{kind} are to be cached, but nothing provides them",
            where=f"tensors.{kind}",
            fix=f"Put a {kind} step before this one, or do not ask for {kind}.",
        )


def _free(path: Path) -> int:
    """Free bytes of the disk that holds, or will hold, `path`."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
