"""Which frames each sample of a batch shows: the rules of pipeline/video/sampling.py, for many
videos at once.

What is drawn is a function of (seed, epoch, sample) alone. So a batch is the same whatever the
number of threads or processes, and wherever a run was interrupted. Source:
docs/specs/preprocessing.md, sections 1.8, 6.3 and 6.4.
"""

from dataclasses import dataclass
from numbers import Rational

import numpy as np

from models.parts.splitmix import STEP, mix
from pipeline.recipes.options import FrameMode, FrameOrder
from pipeline.video.sampling import choose_frames, segments

DRAWN = ("segments", "segments-published")
# the order takes numbers of the stream from here on; the places in segments take the first ones
_SHUFFLE = 1 << 20


@dataclass(frozen=True)
class Samples:
    """What the random choices of a batch are keyed by. rows: int64 (B,), the sample (caption) of
    each video.
    """

    seed: int
    epoch: int
    rows: np.ndarray


def choose(
    counts: np.ndarray,
    m: int,
    mode: FrameMode,
    samples: Samples,
    every: int | np.ndarray = 1,
    order: FrameOrder = "forward",
) -> tuple[np.ndarray, np.ndarray]:
    """Return m frames of each of B videos, int64 (B, m), and how many of them are real, int64 (B,).

    counts: frames of each video, int64 (B,), all positive. every: choose among every n-th frame
    only, one number or int64 (B,). Real frames come first; a video that has fewer than m repeats
    the last one shown.
    """
    counts = -(-counts // every)
    index = _drawn(counts, m, mode, samples) if mode in DRAWN else _fixed(counts, m, mode)
    real = np.minimum(counts, m)
    if order != "forward":
        place = _places(real, m, samples if order == "shuffled" else None)
        index = np.take_along_axis(index, place, axis=1)
    return index * np.reshape(every, (-1, 1)), real


def stride(held: Rational | float | None, fps: float | None) -> int:
    """Return every how many frames to take of a source with `held` frames per second, for a model
    that reads `fps`: round(held / fps), as DRL's reader; 1 where one of them is not known.

    Source: docs/specs/preprocessing.md, section 1.8.
    """
    return max(1, round(held / fps)) if held and fps else 1


def uniform(samples: Samples, m: int, start: int = 0) -> np.ndarray:
    """Numbers in [0, 1), float64 (B, m): entries `start` to `start + m` of the stream of each
    sample.

    Counter-based (SplitMix64, Steele et al. 2014), so no generator is built per sample.
    """
    with np.errstate(over="ignore"):  # unsigned integers wrap round: that is the method
        key = mix(mix(np.uint64(samples.seed)) + np.uint64(samples.epoch))
        rows = mix(key + samples.rows.astype(np.uint64))
        steps = np.arange(start + 1, start + m + 1, dtype=np.uint64) * STEP
        return (mix(rows[:, None] + steps) >> np.uint64(11)) * 2.0**-53


def _drawn(counts: np.ndarray, m: int, mode: FrameMode, samples: Samples) -> np.ndarray:
    """Return one random frame of each of m segments, int64 (B, m); all frames of a video with
    fewer.
    """
    n = counts[:, None]  # (B, 1)
    starts, sizes = segments(counts, m, mode)
    drawn = starts + (uniform(samples, m) * sizes).astype(np.int64)  # (B, m)
    is_short = n <= m if mode == "segments" else n < m
    return np.where(is_short, np.minimum(np.arange(m), n - 1), drawn)


def _fixed(counts: np.ndarray, m: int, mode: FrameMode) -> np.ndarray:
    different, which = np.unique(counts, return_inverse=True)
    return np.stack([choose_frames(int(n), m, mode)[0] for n in different])[which]


def _places(real: np.ndarray, m: int, samples: Samples | None) -> np.ndarray:
    """Return a new order of the first `real` entries of each row (reversed, or drawn); later ones
    repeat the last of them.
    """
    is_real = np.arange(m) < real[:, None]
    if samples is None:
        place = real[:, None] - 1 - np.arange(m)
    else:
        place = np.where(is_real, uniform(samples, m, _SHUFFLE), 2.0).argsort(axis=1)
    last = np.take_along_axis(place, real[:, None] - 1, axis=1)
    return np.where(is_real, place, last)
