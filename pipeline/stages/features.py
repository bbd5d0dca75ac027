"""Turn frames into CNN features, stored as a BigFile.

    python cli.py features --in small --out features --networks '[resnet152]' \\
        --weights '[resnet152-f82ba261.pth]'

Networks are those of ImageNet with torchvision's weight files, or the untrained one of the demo.

Source: docs/specs/preprocessing.md, sections 1.7 and 7, docs/specs/dual-encoding.md, section 12.
"""

import contextlib
import importlib.metadata
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, field_validator, model_validator

from pipeline.cnn.networks import NETWORKS, NetworkName, Profile, digits, how_to_get
from pipeline.cnn.preprocess import Preprocess, crops, shrink
from pipeline.core.artefact import Artefact
from pipeline.core.files import DigestCache
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import STATE, Record, digest
from pipeline.datasets.parts.sources import Source, unusable, video_sources
from pipeline.errors import ConfigError, DataError, ItemError
from pipeline.stores.big_file.stage import BigFileStage, Rows
from pipeline.video.frame_rule import FrameChoice, Limits

if TYPE_CHECKING:
    from models.features.batches import Batches
    from pipeline.stores.frame_store.reader import FrameStore
    from pipeline.stores.frame_store.stored_clip import StoredClip
    from pipeline.video.reader import ClipReader

_BATCH = {"cpu": 8, "cuda": 128}


class Options(Limits):
    networks: list[NetworkName] = Field(
        ["resnext101_32x8d", "resnet152"],
        min_length=1,
        description="their features are joined in this order",
    )
    weights: dict[NetworkName, Path] | list[Path] = Field(
        [],
        description=("files of https://download.pytorch.org/models/, by network or in their order"),
    )
    every: Annotated[float, Field(gt=0)] | Literal["half-second"] = Field(
        "half-second",
        description=("seconds between frames, or half-second"),
    )
    preprocess: Profile = Field(
        "vcf",
        description=(
            "vcf: squash to 256 x 256, as published; torchvision, torchvision-v2: short side 256,"
            " 232"
        ),
    )
    ten_crops: bool = Field(
        True,
        description=(
            "mean over ten crops, as published (ten times the work), or only the centre crop"
        ),
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "float32",
        description="auto: bfloat16 where the hardware has it, else float32",
    )
    batch: int | None = Field(
        None, ge=1, le=4096, description="images per pass [8 on a CPU, 128 on a GPU]"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the networks run")

    @field_validator("networks", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if len(set(self.networks)) < len(self.networks):
            raise ValueError("a network is named twice")
        if isinstance(self.weights, dict) and (strangers := set(self.weights) - set(self.trained)):
            raise ValueError(
                f"weights for networks that take none here: {', '.join(sorted(strangers))}"
            )
        if isinstance(self.weights, list) and len(self.weights) > len(self.trained):
            raise ValueError(
                f"{len(self.weights)} weight files for {len(self.trained)} networks that take one"
            )
        return self

    @property
    def trained(self) -> list[str]:
        """The networks that need a weight file, in order."""
        return [name for name in self.networks if NETWORKS[name].files]

    @property
    def weight_files(self) -> dict[str, Path]:
        """The weight file of each network that was given one."""
        if isinstance(self.weights, dict):
            return dict(self.weights)
        return dict(zip(self.trained, self.weights, strict=False))

    @property
    def ways(self) -> list[Preprocess]:
        """How each network sees a frame."""
        return [
            NETWORKS[name].preprocess(self.preprocess, self.ten_crops) for name in self.networks
        ]


class Pictures(NamedTuple):
    """What a worker hands to the process that holds the GPU: frame ids, and uint8 (T, H, W, 3) per
    preprocessing.
    """

    ids: list[str]
    frames: dict[Preprocess, np.ndarray]


Shrunk = Iterator[
    tuple[int, dict[Preprocess, np.ndarray]]
]  # frame number, picture as each network sees it


class _How(NamedTuple):
    """How networks are run. full: every batch is filled up to one size."""

    precision: str
    device: str
    batch: int
    full: bool


class Stage(BigFileStage):
    needs = {
        "videos": Need(
            "video_files", optional=True, help="folder of videos, or a step that makes them"
        ),
        "frames": Need(
            "frame_store", optional=True, auto=False, help=("frame store to read instead of videos")
        ),
    }
    runs = "workers"
    indifferent = frozenset(
        {"weights", "device"}
    )  # the content of the weights is part of every item's key
    Options = Options

    @classmethod
    def mistakes(cls, options: Options, given: dict[str, list[str]] | None) -> list[str]:
        """Every network that is trained has a weight file, and an input provides pictures."""
        checks = [lambda: _expect_weights(options)]
        if given is not None:
            checks.append(lambda: _expect_pictures(given))
        found = []
        for check in checks:
            try:
                check()
            except ConfigError as error:
                found.append(str(error))
        return found

    def __init__(
        self, options: Options, inputs: dict[str, Artefact | list[Artefact] | None], out: Path
    ):
        super().__init__(options, inputs, out)
        self._device = _device(options.device)
        self._pending: list[
            tuple[Record, list[str], np.ndarray | None]
        ] = []  # committed, their rows not yet written
        # one process holds the GPU and batches across videos; on CPUs every worker runs the
        # networks itself
        self._in_parent = self._device != "cpu"
        self.flush_items = 32 if self._in_parent else 1

    @property
    def dim(self) -> int:
        return sum(NETWORKS[name].dim for name in self.options.networks)

    def items(self) -> Iterable[Item]:
        weights = list(self._weight_digests().values())
        for source in self._sources():
            yield Item(source.id, digest([source.key, weights]), source, str(source.path))

    def timeout(self, item: Item) -> float:
        return 12 * 3600.0 if self._device == "cpu" and self.options.trained else 3600.0

    def process(self, item: Item) -> Outcome:
        """Return rows of the video (CPU), or its resized frames for the GPU of the parent
        process.
        """
        source: Source = item.payload
        if source.problem:
            raise unusable(source.problem, "unreadable")
        clip = self._clip(item.id, source)
        shrunk = self._shrunk(clip)
        value = self._pictures(item.id, shrunk) if self._in_parent else self._rows(item.id, shrunk)
        facts = {
            "frames": len(value.ids),
            "bytes": len(value.ids) * self.dim * 4,
            "computed": self._computed,
        }
        return Outcome(
            status=clip.status,
            value=value,
            outputs={},
            facts=facts,
            reason=clip.reason,
            message=clip.message,
        )

    def open(self, records: list[Record]) -> list[Record]:
        for record in records:
            self._expect_same_device(record)
        if self._device == "cuda":
            _expect_gpu()
        return super().open(records)

    def reuse(self, item: Item, record: Record, folder: Path) -> Outcome:
        self._expect_same_device(record)
        return super().reuse(item, record, folder)

    def commit(self, item: Item, outcome: Outcome, record: Record) -> None:
        value = outcome.value
        if not self._in_parent:
            super().commit(item, outcome, record)
        elif isinstance(value, Rows):
            self._pending.append((record, value.ids, value.values))
        else:
            for way, batches in zip(self.options.ways, self._networks(), strict=True):
                for frame in value.frames[way]:
                    _add(batches, frame, way)
            self._pending.append((record, value.ids, None))

    def flush(self) -> dict[str, Outcome | ItemError]:
        refused: dict[str, Outcome | ItemError] = {}
        new = [ids for _, ids, values in self._pending if values is None]
        rows = iter(
            np.split(self._drained(), np.cumsum([len(ids) for ids in new])[:-1]) if new else []
        )
        for record, ids, values in self._pending:
            try:
                own = Rows(ids, next(rows) if values is None else values)
                self.append(record.id, own, record)
            except ItemError as error:
                refused[record.id] = error
        self._pending.clear()
        return super().flush() | refused

    def finish(self, records: list[Record]) -> dict:
        options, weights = self.options, self._weight_digests()
        networks = [
            {
                "name": name,
                "dim": NETWORKS[name].dim,
                "weights": weights.get(name, ""),
                "preprocess": asdict(way),
            }
            for name, way in zip(options.networks, options.ways, strict=True)
        ]
        made = {
            "networks": networks,
            "computed": self._computed,
            "torch": importlib.metadata.version("torch"),
        }
        return (
            super().finish(records) | made
        )  # the networks are in the order of their blocks in a row

    def close(self) -> None:
        super().close()
        self._pending.clear()
        _loaded.cache_clear()  # later steps in this process want the memory

    def _sources(self) -> Iterator[Source]:
        cache = self.out / STATE / "digests.jsonl"
        if self.inputs.get("frames"):
            yield from _stored(self.inputs["frames"], self._store, cache)
        elif self.inputs.get("videos"):
            yield from video_sources(self.inputs["videos"], cache).sources
        else:
            _expect_pictures(self.inputs)

    def _clip(self, video_id: str, source: Source) -> "StoredClip | ClipReader":
        every = self.options.every
        choice = FrameChoice("half-second") if every == "half-second" else FrameChoice.every(every)
        if self.inputs.get("frames"):
            from pipeline.stores.frame_store.stored_clip import read_clip

            return read_clip(self._store, video_id, choice, self.options)
        from pipeline.video.reader import iterate_clip

        return iterate_clip(source.path, choice, None, self.options, source.moment)

    @cached_property
    def _store(self) -> "FrameStore":
        from pipeline.stores.frame_store.reader import FrameStore

        return FrameStore.open(self.inputs["frames"].path)

    def _shrunk(self, clip: "StoredClip | ClipReader") -> Shrunk:
        """Number and pictures of each chosen frame; one that fills several slots is one row."""
        last = None
        for frame in clip:
            if frame.source_index != last:
                ways = dict.fromkeys(self.options.ways)
                yield (
                    frame.source_index,
                    {w: shrink(frame.image, w, self.options.max_long_side) for w in ways},
                )
            last = frame.source_index
        if last is None:
            raise ItemError("no_frames", "no frame decodes")

    def _rows(self, video_id: str, shrunk: Shrunk) -> Rows:
        for batches in self._networks():
            batches.clear()  # of what a video that failed half-way has left
        ids = []
        for index, pictures in shrunk:
            ids.append(f"{video_id}_{index}")
            for way, batches in zip(self.options.ways, self._networks(), strict=True):
                _add(batches, pictures[way], way)
        return Rows(ids, self._drained())

    def _pictures(self, video_id: str, shrunk: Shrunk) -> Pictures:
        shrunk = list(shrunk)
        frames = {
            way: np.stack([pictures[way] for _, pictures in shrunk])
            for way in dict.fromkeys(self.options.ways)
        }
        return Pictures([f"{video_id}_{index}" for index, _ in shrunk], frames)

    def _networks(self) -> "tuple[Batches, ...]":
        options = self.options
        files = tuple(str(options.weight_files.get(name, "")) for name in options.networks)
        batch = options.batch or _BATCH[self._device]
        how = _How(self._precision, self._device, batch, full=self._in_parent)
        return _loaded(tuple(options.networks), files, tuple(options.ways), how)

    def _drained(self) -> np.ndarray:
        """Features of all images added since the last time, float32 (frames, dim): crops averaged,
        networks joined.
        """
        blocks = []
        for way, batches in zip(self.options.ways, self._networks(), strict=True):
            features = batches.drain()
            blocks.append(features.reshape(-1, way.images_per_frame, features.shape[1]).mean(1))
        return np.concatenate(blocks, axis=1)

    @cached_property
    def _precision(self) -> str:
        if self.options.precision != "auto":
            return self.options.precision
        return "bfloat16" if self._device == "cuda" or _cpu_has_bfloat16() else "float32"

    @property
    def _computed(self) -> str:
        """Device and precision, which must be the same for all rows of a store."""
        return f"{self._device} {self._precision}"

    def _expect_same_device(self, record: Record) -> None:
        before = record.facts.get("computed", self._computed)
        if before != self._computed:
            raise ConfigError(
                f"the rows so far were computed on {before}, but this run would continue on"
                f" {self._computed}",
                where=self.out,
                fix=(
                    f"Use --device {before.partition(' ')[0]} on a machine like the first, or"
                    " start afresh with --force (in a pipeline: --force STEP)."
                ),
            )

    def _weight_digests(self) -> dict[str, str]:
        """sha256 of each weight file. ConfigError if one was not named, DataError if it is missing
        or damaged.
        """
        _expect_weights(self.options)
        files = self.options.weight_files
        cache = DigestCache(self.out / STATE / "digests.jsonl")
        digests = {name: _weight_digest(name, files[name], cache) for name in self.options.trained}
        cache.save()
        return digests


def _weight_digest(name: str, file: Path, cache: DigestCache) -> str:
    try:
        found = cache(file)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=file, fix=how_to_get(name)
        ) from error
    if file.name in NETWORKS[name].files and not found.startswith(digits(file.name)):
        raise DataError(
            f"its SHA-256 begins with {found[:8]}, not {digits(file.name)}",
            where=file,
            fix=how_to_get(name),
        )
    return found


def _stored(artefact: Artefact, store: "FrameStore", cache: Path) -> Iterator[Source]:
    records = artefact.records()
    if records:
        yield from (Source(record.id, store.path, record.content) for record in records)
        return
    remembered = DigestCache(
        cache
    )  # a store that no step of ours made: any change of the file changes every video
    content = remembered(store.path)
    remembered.save()
    yield from (Source(video_id, store.path, content) for video_id in store.ids)


def _add(batches: "Batches", frame: np.ndarray, way: Preprocess) -> None:
    for image in crops(frame, way):
        batches.add(image)


@lru_cache(maxsize=1)
def _loaded(
    names: tuple[str, ...], files: tuple[str, ...], ways: tuple[Preprocess, ...], how: _How
) -> "tuple[Batches, ...]":
    """Return the networks of this process, loaded once."""
    from models.features.batches import Batches, load_network

    loaded = []
    for name, file, way in zip(names, files, ways, strict=True):
        try:
            network = load_network(name, _state(file) if file else None, how.precision, how.device)
        except ValueError as error:
            raise DataError(str(error), where=file, fix=how_to_get(name)) from error
        loaded.append(Batches(network, way.crop, how.batch, how.device, how.full))
    return tuple(loaded)


def _state(file: str) -> dict:
    from pipeline.checkpoints.archive import read_archive

    state = read_archive(Path(file))
    if not isinstance(state, dict):
        raise ValueError(f"expected a dictionary of tensors, found {type(state).__name__}")
    return state


def _device(wanted: str) -> str:
    """cpu or cuda, decided without importing torch: every worker asks."""
    if wanted != "auto":
        return wanted
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    try:
        usable = not importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:  # a machine that only decodes
        usable = False
    return "cuda" if Path("/dev/nvidiactl").exists() and usable and not hidden else "cpu"


def _expect_weights(options: Options) -> None:
    """ConfigError that lists every trained network for which no weight file is named."""
    missing = [name for name in options.trained if name not in options.weight_files]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} need weight files",
            where="features",
            fix=how_to_get(*missing),
        )


def _expect_pictures(given: Mapping[str, object]) -> None:
    """ConfigError unless one of the inputs (need: what provides it) holds pictures."""
    if not given.get("frames") and not given.get("videos"):
        raise ConfigError(
            "there are neither videos nor frames to read",
            where="features",
            fix="Give videos (--in) or a frame store (--frames).",
        )


def _expect_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            "torch finds no usable GPU",
            where="features",
            fix="Set device to cpu, or see: python cli.py doctor",
        )


def _cpu_has_bfloat16() -> bool:
    with contextlib.suppress(OSError):
        return bool({"amx_bf16", "avx512_bf16"} & set(Path("/proc/cpuinfo").read_text().split()))
    return False
