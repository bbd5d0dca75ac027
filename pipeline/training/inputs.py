"""What training, evaluation and search read besides captions: features, first word vectors, and the device they use."""

from pathlib import Path

import numpy as np
import torch

from pipeline.errors import ConfigError, DataError
from pipeline.stores.big_file import BigFile
from pipeline.stores.tensor_cache import TensorCache
from pipeline.training.corpus import Store

VECTORS = "pretrained_weight.npy"


def open_store(tensors: Path | None, features: Path | None = None) -> Store:
    """Frame features from a tensor cache (or the `features` cache of a tensors step), else from a BigFile.

    Raises DataError for a cache of something else, ConfigError if neither is given.
    """
    if tensors is not None:
        cache = TensorCache.open(tensors / "features" if (tensors / "features").is_dir() else tensors)
        if cache.kind != "features" or not len(cache):
            what = f"this tensor cache holds {cache.kind}, not features" if len(cache) else "this tensor cache is empty"
            raise DataError(what, where=cache.path, fix="Add `features: {}` to the tensors step and run it again.")
        return Store(cache.__getitem__, cache.__contains__, cache.shape(cache.ids[0])[1])
    if features is None:
        raise ConfigError(
            "no features to read", where="features", fix="Give --tensors or --features, or add a tensors step."
        )
    store = BigFile.open(features)
    return Store(store.read_video, store.videos.__contains__, store.dim)


def load_vectors(path: Path) -> np.ndarray:
    """The first word embedding, float32 (words, dim), of a word2vec step's folder or an .npy file. DataError else."""
    file = path / VECTORS if path.is_dir() else path
    fix = f"Give the {VECTORS} of a word2vec step, or run that step again."
    try:
        vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot be read: {error}", where=file, fix=fix) from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype != np.float32:
        shape = f"{vectors.dtype} {vectors.shape}" if isinstance(vectors, np.ndarray) else "an archive"
        raise DataError(f"expected float32 (words, dim), found {shape}", where=file, fix=fix)
    return vectors


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device for auto, cpu, cuda or cuda:N; auto takes the GPU of this process if there is one."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("there is no GPU that torch can use", where=f"--device {name}", fix="Use --device cpu.")
    return torch.device(name) if ":" in name else torch.device("cuda", local_rank)
