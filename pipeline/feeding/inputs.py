"""What training, evaluation and search read besides captions: frames, features, word vectors; and
their device.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from models.base import Inputs
from pipeline.arrays import read_npy
from pipeline.core.artefact import Artefact
from pipeline.core.state import STATE
from pipeline.datasets.parts.sources import video_sources
from pipeline.errors import ConfigError, DataError
from pipeline.feeding.corpus import Store, VideoStore
from pipeline.feeding.frame_source import CachedFrames, DecodedFiles, FrameSource, StoredFrames
from pipeline.feeding.frames import FrameReader
from pipeline.recipes.options import FrameOptions
from pipeline.stores.big_file.reader import BigFile
from pipeline.stores.frame_store.reader import FrameStore
from pipeline.stores.kinds import is_video_lmdb
from pipeline.stores.tensor_cache.reader import TensorCache

VECTORS = "pretrained_weight.npy"


@dataclass(frozen=True)
class Given:
    """The artefacts that frames or features may be read from. digests: where digests of raw videos
    are remembered.
    """

    tensors: Artefact | None = None
    features: Artefact | None = None
    store: Artefact | None = None
    videos: Artefact | None = None
    digests: Path | None = None

    @classmethod
    def of(cls, inputs: Mapping[str, Artefact | list[Artefact] | None], out: Path) -> "Given":
        """Return those among the inputs of a stage that writes into `out`."""
        named = {name: inputs.get(name) for name in ("tensors", "features", "store", "videos")}
        return cls(**named, digests=out / STATE / "digests.jsonl")


def open_videos(
    inputs: Inputs,
    given: Given,
    options: FrameOptions,
    *,
    seed: int = 0,
    threads: int | None = None,
) -> VideoStore:
    """Return what a model with these inputs reads of videos. ConfigError if it is not given,
    DataError if it does not fit.
    """
    if inputs.video == "features":
        return open_store(
            *(made.path if made else None for made in (given.tensors, given.features))
        )
    return FrameReader(
        open_frames(given, inputs.size, options), inputs.frames, options, seed=seed, threads=threads
    )


def open_frames(given: Given, size: int, options: FrameOptions) -> FrameSource:
    """Frames of `size` pixels from the source the options name, or the fastest that is given."""
    openers = {"tensors": _cached_frames, "store": _stored_frames, "videos": _video_files}
    names = openers if options.source == "auto" else [options.source]
    for name in names:
        made = getattr(given, name)
        if made is not None and (
            options.source != "auto" or name != "tensors" or _holds_frames(made.path)
        ):
            return openers[name](given, size, options)
    what = (
        "no frames to read"
        if options.source == "auto"
        else f"no {options.source} to read frames from"
    )
    raise ConfigError(
        what,
        where="frames",
        fix="Add `frames: {}` to the tensors step, or give --tensors, --store or --videos.",
    )


def _holds_frames(path: Path) -> bool:
    return (path / "frames").is_dir() or TensorCache.open(path).kind == "frames"


def _cached_frames(given: Given, size: int, options: FrameOptions) -> CachedFrames:
    cache = TensorCache.open_kind(given.tensors.path, "frames")
    cache.expect_size(size)
    facts = ((record.id, record.facts.get("fps")) for record in given.tensors.records())
    rates = {name.removeprefix("frames/"): Fraction(fps) for name, fps in facts if fps}
    return CachedFrames(cache, size, rates)


def _stored_frames(given: Given, size: int, options: FrameOptions) -> StoredFrames:
    return StoredFrames(FrameStore.open(given.store.path), size, options.fit)


def _video_files(given: Given, size: int, options: FrameOptions) -> DecodedFiles | StoredFrames:
    if is_video_lmdb(given.videos):
        return StoredFrames(FrameStore.open(given.videos.path), size, options.fit)
    sources = video_sources(given.videos, given.digests).sources
    usable = [source for source in sources if not source.problem]
    return DecodedFiles(
        {source.id: source.path for source in usable},
        size,
        options.fit,
        options.fps,
        {source.id: source.moment for source in usable if source.moment},
    )


def open_store(tensors: Path | None, features: Path | None = None) -> Store:
    """Frame features from a tensor cache (or the `features` cache of a tensors step), else from a
    BigFile.

    Raises DataError for a cache of something else, ConfigError if neither is given.
    """
    if tensors is not None:
        cache = TensorCache.open_kind(tensors, "features")
        return Store(
            cache.__getitem__,
            cache.__contains__,
            cache.shape(cache.ids[0])[1],
            f"tensor cache {cache.path}",
        )
    if features is None:
        raise ConfigError(
            "no features to read",
            where="features",
            fix="Give --tensors or --features, or add a tensors step.",
        )
    store = BigFile.open(features)
    return Store(store.read_video, store.videos.__contains__, store.dim, f"BigFile {features}")


def load_vectors(path: Path) -> np.ndarray:
    """Return the first word embedding, float32 (words, dim), of a word2vec step's folder or an .npy
    file. DataError else.
    """
    file = path / VECTORS if path.is_dir() else path
    fix = f"Give the {VECTORS} of a word2vec step, or run that step again."
    try:
        vectors = np.array(read_npy(file))
    except DataError as error:
        raise DataError(f"cannot be read: {error.what}", where=file, fix=fix) from error
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        found = f"{vectors.dtype} {vectors.shape}"
        raise DataError(f"expected float32 (words, dim), found {found}", where=file, fix=fix)
    return vectors


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device for auto, cpu, mps, cuda or cuda:N; auto takes the GPU of this process if
    there is one.

    ConfigError for a GPU that is not there.
    """
    if name == "mps":
        return _apple_gpu()
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            "there is no GPU that torch can use", where=f"--device {name}", fix="Use --device cpu."
        )
    device, n_gpus = (
        torch.device(name) if ":" in name else torch.device("cuda", local_rank),
        torch.cuda.device_count(),
    )
    if device.index >= n_gpus:
        raise ConfigError(
            f"there is no GPU {device.index}, this machine has {n_gpus}",
            where=f"--device {name}",
            fix=(
                f"Start at most {n_gpus} processes on this machine (torchrun --nproc-per-node), or"
                " use --device cpu."
            ),
        )
    return device


def _apple_gpu() -> torch.device:
    if torch.backends.mps.is_available():
        return torch.device("mps")
    is_built = torch.backends.mps.is_built()
    raise ConfigError(
        "torch cannot use an Apple GPU here: "
        + ("this machine has none" if is_built else "it was built without mps"),
        where="--device mps",
        fix="Use --device cpu.",
    )
