"""Which frames of a clip a model sees: pure functions on integers, nothing is read.

Source: docs/specs/preprocessing.md, sections 1.8 and 6.4; dataloaders/sampling.py of
mzhaoshuai/CenterCLIP and knightyxp/DGL (TSN segments), ArrowLuo/CLIP4Clip (integer-rate grid),
foolwood/DRL (stride), xuchaoxi/video-cnn-feat (half seconds).
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
        raise ValueError(f"a choice needs at least one frame, got n={n}, m={m}, length={length}")
    if mode == "all":
        return np.arange(n, dtype=np.int64), n
    starts = max(1, n - length + 1)  # positions at which `length` frames can start
    has_empty_segments = (
        mode == "segments-published" and starts < m < n
    )  # only possible with length > 1
    indices = _positions(n, m, rng) if has_empty_segments else _MODES[mode](starts, m, rng)
    return np.minimum(indices, starts - 1).astype(np.int64), min(n, m)


def time_grid(times_ms: np.ndarray, fps: float | Fraction) -> np.ndarray:
    """The last frame at or before every 1/fps since the first frame, int64 (K,); frames repeat
    across gaps.

    times_ms: increasing times in milliseconds, rounded, (n,). The grid ends with the last frame.
    ValueError if empty.
    """
    times = np.asarray(times_ms, dtype=np.int64)
    if not len(times):
        raise ValueError("a choice needs at least one frame, got no times")
    elapsed = times - times[0]
    # a time may have been rounded up by half a millisecond
    count = int((elapsed[-1] + 0.5) * float(fps) / 1000) + 1
    slots = np.arange(count) * (1000 / float(fps)) + 0.5
    return np.searchsorted(elapsed, slots, side="right").astype(np.int64) - 1


def published_int_rate(
    n: int, rate: float | Fraction, fps: int = 1, start: int = 0, end: int | None = None
) -> np.ndarray:
    """The frames that the OpenCV reader of CLIP4Clip and DiffusionRet takes, int64 (K,).

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
    """Every round(rate / fps)-th frame, int64 (K,), as the decord reader of DRL. ValueError for an
    empty clip.
    """
    if n < 1:
        raise ValueError(f"a choice needs at least one frame, got n={n}")
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


def half_second(n: int, rate: float | Fraction) -> np.ndarray:
    """Frames c with c mod f in {0, f // 2}, f = int(rate), int64 (K,); every frame below 2 fps.

    The frames of published BigFile features. Source: xuchaoxi/video-cnn-feat:
    videocnn/video2frames.py.
    """
    whole, frames = int(rate), np.arange(n, dtype=np.int64)
    return frames[np.isin(frames % whole, (0, whole // 2))] if whole >= 2 else frames


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
    bounds = np.arange(m + 1) * n // m
    return bounds[:-1] + _below(rng, np.diff(bounds), m)


def _segments_published(n: int, m: int, rng: Rng | None) -> np.ndarray:
    if n < m:
        return np.arange(m)
    size = n // m
    return np.arange(m) * size + _below(rng, size, m)


def _positions(n: int, m: int, rng: Rng | None) -> np.ndarray:
    """m distinct random positions in order, where segments would be empty."""
    if rng is None:
        raise ValueError("this mode draws at random: give a generator")
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
        raise ValueError("this mode draws at random: give a generator")
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
