"""Which frames of a clip a model sees: pure functions on integers, nothing is read.

Tensor stores (stores/tensor_cache/tensor_inputs.py) and pictures choose by `choose_frames`;
training (feeding/frame_choice.py) draws within `segments`. How published readers took frames out
of a video file (`published_int_rate`, `strided`, `published_window`) is compared by the parity
checks; our own rules for that stand in frame_rule.py and timeline.py.

Source: docs/specs/preprocessing.md, sections 1.8 and 6.4; dataloaders/sampling.py of
mzhaoshuai/CenterCLIP and knightyxp/DGL (TSN segments), ArrowLuo/CLIP4Clip (integer-rate grid),
foolwood/DRL (stride).
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Literal

import numpy as np

Rng = np.random.Generator | np.random.RandomState
Mode = Literal[
    "centers", "segments", "segments-published", "linspace", "head", "tail", "twice", "all"
]


def choose_frames(
    n: int, m: int, mode: Mode, rng: Rng | None = None, length: int = 1
) -> tuple[np.ndarray, int]:
    """Return m of n frames in order, int64 (m,), and how many of them are real: min(n, m).

    A clip with fewer than m frames repeats its last one. Modes:
    centers: the middles of m equal segments. segments: one random frame of each of m segments that
    cover the clip. segments-published: segments of n // m frames, so that the last n % m frames are
    never seen. linspace: from first to last, truncated. head, tail: the first or last m. twice: the
    centers, then the starts of the segments (2m frames; m where n <= m). all: every frame, whatever
    m.
    rng: for the two modes that draw; a RandomState reproduces the published draws. length: frames
    that belong to one draw (`data_length`; 1 in all published scripts); frames are then drawn from
    the first n - length + 1. ValueError if n or m is below 1.
    """
    if n < 1 or m < 1 or length < 1:
        raise ValueError(f"at least one frame is needed, got n={n}, m={m}, length={length}")
    if mode == "all":
        return np.arange(n, dtype=np.int64), n
    starts = max(1, n - length + 1)  # positions at which `length` frames can start
    has_empty_segments = (
        mode == "segments-published" and starts < m < n
    )  # only possible with length > 1
    indices = _positions(n, m, rng) if has_empty_segments else _MODES[mode](starts, m, rng)
    return np.minimum(indices, starts - 1).astype(np.int64), min(n, m)


def segments(
    counts: np.ndarray, m: int, mode: Literal["segments", "segments-published"]
) -> tuple[np.ndarray, np.ndarray]:
    """First frame and number of frames of each of m segments, both int64 (B, m).

    counts: frames of each of B clips, int64 (B,). A random frame of a segment is its first one plus
    a number below its size. In clips of fewer than m frames segments are empty.
    """
    n = counts[:, None]  # (B, 1)
    if mode == "segments-published":
        sizes = np.broadcast_to(n // m, (len(counts), m))
        return np.arange(m) * sizes, sizes
    bounds = np.arange(m + 1) * n // m  # (B, m + 1)
    return bounds[:, :-1], np.diff(bounds, axis=1)


def published_int_rate(
    n: int, rate: float | Fraction, fps: int = 1, start: int = 0, end: int | None = None
) -> np.ndarray:
    """Return the frames that the OpenCV reader of CLIP4Clip and DiffusionRet takes, int64 (K,).

    Seconds are counted as int(rate) frames, from `start` to `end` inclusive (default: to the end of
    the clip), with `fps` frames in each; frames beyond the n there are do not count. Source:
    dataloaders/rawvideo_util.py. ValueError for rates below 1 (the published code divides by zero)
    and empty clips.
    """
    whole = int(rate)
    if n < 1 or whole < 1 or fps < 1:
        raise ValueError(
            f"needs at least one frame and one frame per second, got n={n}, rate={rate}, fps={fps}"
        )
    last = -(-n // whole) if end is None else end
    step = max(1, whole // fps)
    offsets = np.arange(0, whole, step)[:fps]
    indices = (np.arange(start, last + 1)[:, None] * whole + offsets).ravel()
    return indices[indices < n].astype(np.int64)


def strided(n: int, rate: float | Fraction, fps: float | Fraction = 1) -> np.ndarray:
    """Return every round(rate / fps)-th frame, int64 (K,), as the decord reader of DRL. ValueError
    for an empty clip.
    """
    if n < 1:
        raise ValueError(f"at least one frame is needed, got n={n}")
    return np.arange(0, n, max(1, round(Fraction(rate) / Fraction(fps))), dtype=np.int64)


def published_window(
    n: int, rate: float, start: float | None, end: float | None
) -> tuple[int, int]:
    """First and last frame of a time window in seconds, as the decord reader of DRL cuts it; (0, n
    - 1) without one.

    Seconds lose their fraction and are at least 0; a window the wrong way round is turned, an empty
    one lasts a second.
    """
    if start is None or end is None:
        return 0, n - 1
    first, last = sorted((max(0, int(start)), max(0, int(end))))
    last += first == last
    return int(first * rate), int(min(last * rate, n - 1))


def _centers(n: int, m: int, rng: Rng | None) -> np.ndarray:
    if n <= m:
        return np.arange(m)
    tick = (
        n / m
    )  # floats on purpose: n = 24, m = 7 gives 11 as its fourth frame in the published code, not 12
    return np.floor(tick / 2 + tick * np.arange(m))


def _segments(n: int, m: int, rng: Rng | None) -> np.ndarray:
    if n <= m:
        return np.arange(m)
    starts, sizes = segments(np.array([n]), m, "segments")
    return starts[0] + _below(rng, sizes[0], m)


def _segments_published(n: int, m: int, rng: Rng | None) -> np.ndarray:
    if n < m:
        return np.arange(m)
    starts, sizes = segments(np.array([n]), m, "segments-published")
    return starts[0] + _below(rng, int(sizes[0, 0]), m)


def _positions(n: int, m: int, rng: Rng | None) -> np.ndarray:
    """m distinct random positions in order, where segments would be empty."""
    if rng is None:
        raise ValueError("this mode draws at random and needs a generator")
    return np.sort(rng.choice(n, m, replace=False))


def _linspace(n: int, m: int, rng: Rng | None) -> np.ndarray:
    return np.arange(m) if n <= m else np.linspace(0, n - 1, m).astype(np.int64)


def _head(n: int, m: int, rng: Rng | None) -> np.ndarray:
    return np.arange(m)


def _tail(n: int, m: int, rng: Rng | None) -> np.ndarray:
    return np.arange(m) + max(0, n - m)


def _twice(n: int, m: int, rng: Rng | None) -> np.ndarray:
    if n <= m:
        return np.arange(m)
    return np.concatenate([_centers(n, m, rng), np.floor(n / m * np.arange(m))])


def _below(rng: Rng | None, limit: int | np.ndarray, m: int) -> np.ndarray:
    """m random integers in [0, limit)."""
    if rng is None:
        raise ValueError("this mode draws at random and needs a generator")
    return (
        rng.randint(limit, size=m)
        if isinstance(rng, np.random.RandomState)
        else rng.integers(0, limit, size=m)
    )


_MODES: dict[str, Callable[[int, int, Rng | None], np.ndarray]] = {
    "centers": _centers,
    "segments": _segments,
    "segments-published": _segments_published,
    "linspace": _linspace,
    "head": _head,
    "tail": _tail,
    "twice": _twice,
}
