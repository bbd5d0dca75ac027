"""Encode videos, and windows in them, for search.

    python cli.py index --in ~/videos --checkpoint ViT-B-32.pt --out data/index
    python cli.py search data/index "a dog runs"

No captions and no splits are needed. Later runs encode only videos that are new.
"""

import json
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from pipeline.core import stage
from pipeline.core.artefact import Artefact
from pipeline.core.files import DigestCache, atomic_write
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import STATE, Record, digest, usable_records
from pipeline.datasets.parts.sources import Source, unusable, video_sources
from pipeline.errors import ConfigError, DataError, ItemError
from pipeline.stores.index.reader import INDEX, PARTIAL, STORE, IndexStore, file_sizes
from pipeline.stores.index.writer import IndexWriter, tidy
from pipeline.stores.kinds import kind_of
from pipeline.video.frame_rule import Limits

if TYPE_CHECKING:
    from pipeline.feeding.windows import Cutting, Seen, Windows
    from pipeline.search.encoding import Encoder
    from pipeline.stores.big_file.reader import BigFile
    from pipeline.stores.frame_store.reader import FrameStore
    from pipeline.stores.tensor_cache.reader import TensorCache

_NEEDS = {"video_files": "videos", "frame_store": "store", "tensors": "tensors"}
_NEEDS |= {"features": "features"}
_MODEL = "model.json"  # what is known of the checkpoint, by its digest: not to load it for nothing
_SECONDS_PER_BYTE = 2 / 25_000


class Options(Limits):
    window: float = Field(10, ge=0, description="seconds of a window; 0: whole videos only")
    stride: float = Field(5, gt=0, description="seconds from one window to the next")
    windows: Literal["even", "shots"] = Field(
        "even", description="even: every `stride` seconds; shots: between cuts"
    )
    fps: float | None = Field(
        None,
        gt=0,
        description=("rows per second of a tensor cache or BigFile  [as its step says]"),
    )
    recipe: str = Field(
        "",
        description="how a published file or a CLIP is read",
    )
    approximate: Literal["auto", "none", "ivf", "sq8"] = Field(
        "auto",
        description=("faiss index (requirements-faiss.txt); auto: ivf above 2,000,000 rows"),
    )
    device: str = Field(
        "auto", pattern="^(auto|cpu|mps|cuda(:[0-9]+)?)$", description="where the model runs"
    )

    @model_validator(mode="after")
    def _covers(self) -> "Options":
        if self.window and self.stride > self.window:
            raise ValueError(
                f"a stride of {self.stride:g} s leaves gaps between windows of {self.window:g} s"
            )
        return self


class _Work(NamedTuple):
    """What a worker needs: the video, how the model sees it (None: it reads features), and of which
    kind, and where, the input is. dim: of features.
    """

    source: Source
    seen: "Seen | None"
    kind: str
    path: Path
    dim: int


class _Lent(NamedTuple):
    """A video as another store has it."""

    store: IndexStore
    number: int


class _Rows(NamedTuple):
    """Features (T, F) of a video, and the windows in it."""

    features: np.ndarray
    spans: np.ndarray
    parts: list[slice]


class Stage(stage.Stage):
    needs = {
        "videos": Need(
            "video_files",
            optional=True,
            also=("frame_store", "tensors", "features"),
            help="folder of videos, a data set, a frame store, a tensor cache or a BigFile",
        ),
        "checkpoint": Need(
            "checkpoint", help="a trained model, a published checkpoint, or weights of a CLIP"
        ),
        "store": Need("frame_store", optional=True, help="a frame store, instead of --in"),
        "tensors": Need("tensors", optional=True, help="a tensor cache, instead of --in"),
        "features": Need("features", optional=True, help="a BigFile, instead of --in"),
        "results": Need(
            "results",
            optional=True,
            auto=False,
            help="an evaluation of the checkpoint: typed captions then rank as in it",
        ),
    }
    makes = "index"
    store = "single"
    watches_inputs = True
    flush_items = 32
    Options = Options
    indifferent = frozenset({"device"})

    def __init__(self, options: Options, inputs: dict, out: Path):
        super().__init__(options, inputs, out)
        self._writer: IndexWriter | None = None
        self._pending: list[tuple[Item, object]] = []
        self._lenders: dict[Path, IndexStore] = {}
        self._listed = 0

    @cached_property
    def runs(self) -> Literal["workers", "inline"]:
        """Video files are decoded in supervised workers, stores are read in the parent."""
        if self._source.kind == "video_files":
            return "workers"
        is_store = self._source.kind == "frame_store"
        is_mp4 = is_store and self._store(self._source.path).layout == "mp4"
        return "workers" if is_mp4 else "inline"

    @classmethod
    def mistakes(cls, options: Options, given: dict[str, list[str]] | None) -> list[str]:
        """Something is to be read, and what the options ask for is installed."""
        found = []
        try:
            _expect_faiss(options)
        except ConfigError as error:
            found.append(str(error))
        if given is not None and not any(given.get(need) for need in _NEEDS.values()):
            found.append(str(_nothing_to_read()))
        return found

    def items(self) -> Iterable[Item]:
        _expect_faiss(self.options)
        facts, checkpoint = self._facts, self._checkpoint
        seen = self._seen(facts)
        n = 0
        for source in self._sources():
            n += 1
            rate = self._rates.get(source.id) if self._source.kind == "tensors" else None
            key = digest([source.key, checkpoint.content, *([rate] if rate else [])])
            work = _Work(source, seen, self._source.kind, self._source.path, facts["dim"])
            yield Item(source.id, key, work, str(source.path))
        self._listed = n
        if not n:
            raise DataError(
                "there is no video here",
                where=self._source.path,
                fix="Give --in a folder of videos (.mp4, .mkv, .webm, ...); nothing was changed.",
            )

    def timeout(self, item: Item) -> float:
        try:
            size = item.payload.source.path.stat().st_size
        except OSError:
            size = 0
        return 600 + 2 * min(size * _SECONDS_PER_BYTE, self.options.max_duration)

    def process(self, item: Item) -> Outcome:
        """Return the windows of a video and their frames, or its features; no model here."""
        work: _Work = item.payload
        if work.source.problem:
            raise unusable(work.source.problem, "unreadable")
        return _READERS[work.kind](self, work)

    def open(self, records: list[Record]) -> list[Record]:
        kept = [record.id for record in records if record.usable]
        is_built = (self.out / STORE / INDEX).exists()
        if (self.out / PARTIAL).exists() or not records or not is_built:
            self._writer = IndexWriter(self.out, kept)
        return []

    def reuse(self, item: Item, record: Record, folder: Path) -> Outcome:
        if folder not in self._lenders:
            self._lenders[folder] = IndexStore.open(folder)
        store = self._lenders[folder]
        value = _Lent(store, store.number_of(item.id))
        return Outcome.of(record, value, record.facts)

    def commit(self, item: Item, outcome: Outcome, record: Record) -> None:
        self._pending.append((item, outcome.value))

    def flush(self) -> dict[str, Outcome | ItemError]:
        """Encode what was read; rows come in item order, whatever is encoded together."""
        from pipeline.search.encoding import Encoder

        refused: dict[str, Outcome | ItemError] = {}
        cut = [value for _, value in self._pending if not isinstance(value, (_Lent, _Rows))]
        arrays = iter(self._encoder.windows(cut) if cut else [])
        for item, value in self._pending:
            path = self._below_root(item.payload.source.path)
            if isinstance(value, _Lent):
                self._writer.lend(value.store, value.number, path)
                continue
            is_rows = isinstance(value, _Rows)
            encoder: Encoder = self._encoder
            found = encoder.features(value.features, value.parts) if is_rows else next(arrays)
            try:
                self._writer.append(item.id, path, value.spans, found)
            except ItemError as error:
                refused[item.id] = error
        self._pending.clear()
        self._writer.sync()
        return refused

    def finish(self, records: list[Record]) -> dict:
        if (self.out / PARTIAL).exists():
            writer = self._writer or IndexWriter(self.out, [record.id for record in records])
            writer.finish(self._head(len(records)))
            self._writer = None
        tidy(self.out)
        store = IndexStore.open(self.out)
        self._say_statistics(store)
        summary = {"videos": store.n_videos, "windows": store.rows}
        summary |= self._approximate(IndexStore.open(self.out))
        return summary | {"set_aside": self._listed - len(records)}

    def files(self) -> list[Path]:
        head = IndexStore.open(self.out).head
        return [self.out / STORE / name for name in (INDEX, *file_sizes(head))]

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None
        self._pending.clear()
        self._lenders.clear()
        self.__dict__.pop("_encoder", None)

    def _head(self, n_usable: int) -> dict:
        """Return what index.json says besides counts and arrays."""
        made, facts = self._checkpoint, self._facts
        return {
            "root": str(self._root),
            "checkpoint": {
                "path": str(self._checkpoint_file),
                "sha256": self._checkpoint_digest,
                "model": facts["model"],
                "kind": facts["kind"],
                "recipe": facts["recipe"],
                "step": made.step,
            },
            "windows": {
                "kind": self.options.windows,
                "seconds": self.options.window,
                "stride": self.options.stride,
            },
            "set_aside": self._listed - n_usable,
            "statistics": {},
        }

    def _say_statistics(self, store: IndexStore) -> None:
        """What a fusion needs of all scores goes into index.json, when the rows are there."""
        if not self._facts["statistics"]:
            return
        found = self._evaluated()
        if found is None:
            from pipeline.search.statistics import statistics_of

            found = statistics_of(self._encoder.model, self._encoder.info, store)
        head = store.head | {"statistics": found}
        data = json.dumps(head, indent=1).encode() + b"\n"
        if (self.out / STORE / INDEX).read_bytes() != data:
            atomic_write(self.out / STORE / INDEX, data)

    def _evaluated(self) -> dict[str, float] | None:
        """Return the statistics of an evaluation of this very checkpoint, where one is given."""
        made = self.inputs.get("results")
        if made is None:
            return None
        from pipeline.evaluation.locate import find_results
        from pipeline.evaluation.results import read_gallery

        folder = find_results(self._checkpoint_file, made.path)
        return dict(read_gallery(folder).statistics)

    def _approximate(self, store: IndexStore) -> dict:
        from pipeline.search.approximate import build

        found = build(self.out, store, self.options.approximate)
        return {} if found is None else {"approximate": found}

    @property
    def _checkpoint(self) -> Artefact:
        return self.inputs["checkpoint"]

    @cached_property
    def _checkpoint_file(self) -> Path:
        """The weight file, or the folder of a model that is more than one file."""
        from pipeline.checkpoints.toolkit_file import find_checkpoint

        return find_checkpoint(self._checkpoint.path).absolute()

    @cached_property
    def _checkpoint_digest(self) -> str:
        from pipeline.search.opening import digest_of

        return digest_of(self._checkpoint_file, self.out)

    @cached_property
    def _encoder(self) -> "Encoder":
        from pipeline.search.encoding import Encoder

        return Encoder(self._checkpoint.path, self.options.recipe, self.options.device)

    @cached_property
    def _facts(self) -> dict:
        """What is known of the model; remembered, because a run that finds nothing new to do need
        not load it.
        """
        file, key = self.out / STATE / _MODEL, [self._checkpoint.content, self.options.recipe]
        try:
            known = json.loads(file.read_bytes())
            if known["key"] == key:
                return known["facts"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        facts = self._encoder.as_dict()
        atomic_write(file, json.dumps({"key": key, "facts": facts}))
        return facts

    def _seen(self, facts: dict) -> "Seen | None":
        """Return how the model sees a video. ConfigError if it reads something else than is
        given.
        """
        kind = self._source.kind
        if facts["video"] == "features":
            if kind not in ("features", "tensors"):
                raise ConfigError(
                    f"the model reads features of videos, not {kind.replace('_', ' ')}",
                    where="index",
                    fix="Extract them (python cli.py features --in FOLDER --out F): --features F.",
                )
            return None
        if kind == "features":
            raise ConfigError(
                "the model reads frames, not features",
                where="index",
                fix="Give --in a folder of videos, or --store FRAMES.",
            )
        from pipeline.feeding.windows import Seen
        from pipeline.recipes.options import FrameOptions

        return Seen(facts["frames"], facts["size"], FrameOptions(**facts["options"]))

    @cached_property
    def _source(self) -> Artefact:
        """Where videos are read: the one input that is named, or what the model reads fastest."""
        given = self.inputs.get("videos")
        if given is not None and given.step == "" and given.kind == "video_files":
            kind = kind_of(given.path) or "video_files"
            given = Artefact(kind, given.path, given.fingerprint, given.content)
        reads = self._facts["video"]
        order = ("features", "tensors") if reads == "features" else ("store", "tensors")
        for need in order:
            if self.inputs.get(need) is not None:
                return self.inputs[need]
        if given is None:
            raise _nothing_to_read()
        return given

    def _sources(self) -> Iterator[Source]:
        if self._source.kind == "video_files":
            yield from video_sources(self._source, self.out / STATE / "digests.jsonl").sources
        else:
            yield from self._stored()

    def _stored(self) -> Iterator[Source]:
        """Videos of a store; their files, as far as the step that made it says where they are."""
        records = usable_records(self._source.path)
        known = {record.id.removeprefix("frames/").removeprefix("features/"): record
                 for record in records}  # fmt: skip
        whole = "" if records else self._store_digest()
        for video_id in self._store_ids():
            record = known.get(video_id)
            path = Path(record.source) if record and record.source else Path()
            yield Source(video_id, path, record.content if record else whole)

    @cached_property
    def _rates(self) -> dict[str, float]:
        """Frames per second of the videos of a tensor cache, as the step that made it says."""
        records = usable_records(self._source.path)
        facts = ((record.id, record.facts.get("fps")) for record in records)
        return {name.removeprefix("frames/"): float(Fraction(fps)) for name, fps in facts if fps}

    def _store_ids(self) -> list[str]:
        kind, path = self._source.kind, self._source.path
        if kind == "features":
            return list(self._big_file(path).videos)
        return self._cache(path).ids if kind == "tensors" else self._store(path).ids

    def _store_digest(self) -> str:
        """Return a store that no step of ours made: any change of it changes every video."""
        remembered = DigestCache(self.out / STATE / "digests.jsonl")
        kind, path = self._source.kind, self._source.path
        if kind == "features":
            from pipeline.stores.big_file.stage import folder_digest

            return folder_digest(path, self.out / STATE / "digests.jsonl")
        is_frames = kind == "frame_store"
        found = remembered(self._store(path).path if is_frames else self._cache(path).path / INDEX)
        remembered.save()
        return found

    @cached_property
    def _root(self) -> Path:
        """What the paths of videos are below."""
        if self._source.kind == "video_files" and self._source.path.is_dir():
            return self._source.path.absolute()
        return Path.cwd()

    def _below_root(self, path: Path) -> str:
        """Return a path as the index keeps it: below its root, so that a collection can be
        moved.
        """
        if path == Path():
            return ""
        whole = os.path.normpath(path.absolute())
        root = os.path.normpath(self._root)
        return os.path.relpath(whole, root) if whole.startswith(root + os.sep) else whole

    @cached_property
    def _cutting(self) -> "Cutting":
        from pipeline.feeding.windows import Cutting

        return Cutting(self.options.window, self.options.stride, self.options.windows == "shots")

    @lru_cache(maxsize=1)  # noqa: B019  (a stage lives as long as its run)
    def _store(self, path: Path) -> "FrameStore":
        from pipeline.stores.frame_store.reader import FrameStore

        return FrameStore.open(path)

    @lru_cache(maxsize=1)  # noqa: B019
    def _cache(self, path: Path) -> "TensorCache":
        from pipeline.stores.tensor_cache.reader import TensorCache

        if self._facts["video"] == "features":
            return TensorCache.open_kind(path, "features")
        cache = TensorCache.open_kind(path, "frames")
        cache.expect_size(self._facts["size"])
        return cache

    @lru_cache(maxsize=1)  # noqa: B019
    def _big_file(self, path: Path) -> "BigFile":
        from pipeline.stores.big_file.reader import BigFile

        return BigFile.open(path)


def _of_file(stage: Stage, work: _Work) -> Outcome:
    from pipeline.feeding.windows import of_file

    source = work.source
    read = of_file(source.path, work.seen, stage._cutting, stage.options, source.moment)
    outcome = _outcome(read.windows)
    outcome.status, outcome.reason, outcome.message = read.status, read.reason, read.message
    return outcome


def _of_store(stage: Stage, work: _Work) -> Outcome:
    from pipeline.feeding.windows import of_file, of_store

    store, video_id = stage._store(work.path), work.source.id
    try:
        if store.layout == "mp4":
            read = of_file(store.bytes(video_id), work.seen, stage._cutting, stage.options)
            return _outcome(read.windows)
        return _outcome(of_store(store, video_id, work.seen, stage._cutting))
    except (KeyError, DataError) as error:
        raise ItemError("bad_value", str(error)) from error


def _of_cache(stage: Stage, work: _Work) -> Outcome:
    from pipeline.feeding.windows import of_cache

    cache, video_id = stage._cache(work.path), work.source.id
    if work.seen is None:
        return _of_rows(stage, work, cache[video_id])
    try:
        fps = stage.options.fps or stage._rates.get(video_id)
        found = of_cache(cache, video_id, work.seen, stage._cutting, fps)
    except (KeyError, DataError) as error:
        raise ItemError("bad_value", str(error)) from error
    return _outcome(found)


def _of_features(stage: Stage, work: _Work) -> Outcome:
    return _of_rows(stage, work, stage._big_file(work.path).read_video(work.source.id))


def _of_rows(stage: Stage, work: _Work, features: np.ndarray) -> Outcome:
    from pipeline.feeding.windows import of_rows

    if work.dim and features.shape[1] != work.dim:
        raise DataError(
            f"the features have {features.shape[1]:,} numbers per frame, the model expects"
            f" {work.dim:,}",
            where=work.path,
            fix="Use the features that the model was trained on.",
        )
    spans, parts = of_rows(len(features), stage.options.fps, stage._cutting)
    facts = {"windows": len(spans), "bytes": features.nbytes}
    return Outcome(value=_Rows(features, spans, parts), facts=facts)


def _outcome(windows: "Windows") -> Outcome:
    facts = {"windows": len(windows.spans), "bytes": windows.nbytes}
    return Outcome(value=windows, facts=facts)


_READERS = {
    "video_files": _of_file,
    "frame_store": _of_store,
    "tensors": _of_cache,
    "features": _of_features,
}


def _nothing_to_read() -> ConfigError:
    return ConfigError(
        "there is nothing to read",
        where="index",
        fix="Name videos (--in), or a store of what the model reads.",
    )


def _expect_faiss(options: Options) -> None:
    if options.approximate in ("ivf", "sq8"):
        from pipeline.search.approximate import expect_faiss

        expect_faiss(options.approximate)
