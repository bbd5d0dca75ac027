"""A saved score matrix with the owners of its captions: what the `metrics` command reads."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.arrays import read_npy, read_npz
from pipeline.errors import ConfigError, DataError

_MATRIX_NAMES = ("sim", "similarity", "scores", "t2v", "sims")


@dataclass(frozen=True)
class Scored:
    """t2v (N_t, N_v), v2t (N_v, N_t), both rows = queries; target int64 (N_t,): the video of each
    caption.
    """

    t2v: np.ndarray
    v2t: np.ndarray
    target: np.ndarray


def read_scored(
    path: Path, *, transposed: bool = False, captions_per_video: int | None = None
) -> Scored:
    """Read a .npy matrix, or a .npz with a matrix and, as it has them: owner (N_t,),
    captions_per_video (N_v,), query_mask (N_t,; 0 = an empty slot), v2t (N_v, N_t; else the
    transpose).

    transposed: rows are videos. captions_per_video: that many consecutive captions for each video.
    Raises DataError: not such a file, not a matrix of real numbers, or captions whose videos are
    not known.
    """
    arrays = read_npz(path) if path.suffix.lower() == ".npz" else {"sim": read_npy(path)}
    t2v = _matrix(arrays, path)
    t2v = t2v.T if transposed else t2v
    v2t = _numbers(arrays["v2t"], "v2t", path) if "v2t" in arrays and "t2v" in arrays else t2v.T
    if v2t.shape != t2v.shape[::-1]:
        raise DataError(
            f"v2t is {_shape(v2t)}, t2v is {_shape(t2v)}",
            where=path,
            fix="Both have their queries as rows.",
        )
    target = _target(arrays, t2v, captions_per_video, path)
    if "query_mask" in arrays:
        there = arrays["query_mask"].ravel() > 0
        if len(there) != len(t2v):
            raise DataError(
                f"query_mask has {len(there):,} entries for {len(t2v):,} captions",
                where=path,
                fix="One per caption.",
            )
        t2v, v2t, target = t2v[there], v2t[:, there], target[there]
    return Scored(t2v, v2t, target)


def read_matrix(path: Path) -> np.ndarray:
    """Return one matrix of real numbers from a .npy or .npz file (a bank of queries)."""
    return _matrix(
        read_npz(path) if path.suffix.lower() == ".npz" else {"sim": read_npy(path)}, path
    )


def _matrix(arrays: dict[str, np.ndarray], path: Path) -> np.ndarray:
    named = [arrays[name] for name in _MATRIX_NAMES if name in arrays]
    found = named[:1] or [a for a in arrays.values() if a.ndim == 2]
    if len(found) != 1:
        raise DataError(
            f"{len(found)} matrices among {', '.join(arrays) or 'no arrays'}",
            where=path,
            fix=f"Name the score matrix one of: {', '.join(_MATRIX_NAMES)}.",
        )
    return _numbers(found[0], "the score matrix", path)


def _numbers(array: np.ndarray, what: str, path: Path) -> np.ndarray:
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.size:
        raise DataError(
            f"{what} is {array.dtype} of shape {_shape(array)}, not a matrix of real numbers",
            where=path,
            fix="Rows are texts and columns videos (or the other way with --transposed).",
        )
    return array


def _target(
    arrays: dict[str, np.ndarray], t2v: np.ndarray, captions_per_video: int | None, path: Path
) -> np.ndarray:
    n_texts, n_videos = t2v.shape
    if captions_per_video is not None:
        if "owner" in arrays or "captions_per_video" in arrays:
            raise ConfigError(
                "this option is given, but the file already says whose captions they are",
                where="--captions-per-video",
                fix="Leave it out.",
            )
        target = np.repeat(np.arange(n_videos), captions_per_video)
    elif "owner" in arrays:
        target = arrays["owner"].ravel()
    elif "captions_per_video" in arrays:
        target = np.repeat(np.arange(n_videos), arrays["captions_per_video"].ravel()[:n_videos])
    elif "query_mask" in arrays and n_texts % n_videos == 0:
        target = np.repeat(np.arange(n_videos), n_texts // n_videos)
    else:
        target = np.arange(
            n_texts if n_texts == n_videos else 0
        )  # a square matrix has its truth on the diagonal
    _check_target(target, t2v, captions_per_video, path)
    return target.astype(np.int64)


def _check_target(
    target: np.ndarray, t2v: np.ndarray, captions_per_video: int | None, path: Path
) -> None:
    n_texts, n_videos = t2v.shape
    if (
        target.dtype.kind not in "iu"
        or len(target) != n_texts
        or not 0 <= target.min() <= target.max() < n_videos
    ):
        guess = (
            f"--captions-per-video {n_texts // n_videos}"
            if n_texts % n_videos == 0 and n_texts > n_videos
            else ""
        )
        hint = f"Try {guess}, or add" if guess else "Add"
        way = (
            ", or give --transposed if rows are videos"
            if n_texts < n_videos and captions_per_video is None
            else ""
        )
        raise DataError(
            f"{n_texts:,} texts x {n_videos:,} videos: it is not known which caption belongs to"
            " which video",
            where=path,
            fix=f"{hint} an integer array `owner` (the video of each caption) in a .npz file{way}.",
        )


def _shape(array: np.ndarray) -> str:
    return " x ".join(f"{n:,}" for n in array.shape) or "a single number"
