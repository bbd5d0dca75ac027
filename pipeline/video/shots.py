"""Where a film is cut: a plain rule on small pictures, a few per second.

Two pictures belong to different shots if their colours and their layout differ by more than a
bound, and by much more than pictures of that second do as a rule (the median): so a pan or a
flicker, where everything differs, is no cut, and two cuts close to each other are two.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline.video.frame_rule import FrameChoice, Limits, SizeRule
from pipeline.video.reader import iterate_clip

_FPS = Fraction(5)
_SIDE = 16
_BOUND = 0.05  # mean difference of two pictures of different shots, of 1
_TIMES = 2.5  # as much as the pictures around
_AROUND = 5  # pictures to either side
_SHORTEST = 1.0  # seconds


def shot_spans(source: Path | bytes, limits: Limits, seconds: float) -> list[tuple[float, float]]:
    """Return the shots of a video, (start, end) in seconds; none where it is a single one.

    ItemError as `reader.decode_clip`.
    """
    reader = iterate_clip(source, FrameChoice.at(_FPS), SizeRule("square", _SIDE), limits)
    pictures, slots = [], []
    for frame in reader:
        pictures.append(frame.image)
        slots.append(frame.repeats)
    images = np.repeat(np.array(pictures), slots, axis=0)
    return spans_between(cuts(images), seconds)


def cuts(images: np.ndarray, fps: float = float(_FPS)) -> list[float]:
    """Seconds at which another shot begins, of pictures uint8 (T, H, W, 3) at an even rate."""
    if len(images) < 2:
        return []
    change = _changes(images)  # (T - 1,)
    around = _usual_around(change)
    found: list[float] = []
    for n in np.flatnonzero((change > _BOUND) & (change > _TIMES * around)).tolist():
        time = (n + 1) / fps
        if not found or time - found[-1] >= _SHORTEST:
            found.append(time)
    return [time for time in found if time >= _SHORTEST]


def spans_between(times: list[float], seconds: float) -> list[tuple[float, float]]:
    """Spans from cut to cut; none where there is no cut."""
    inner = [time for time in times if time < seconds]
    if not inner:
        return []
    bounds = [0.0, *inner, seconds]
    return list(zip(bounds, bounds[1:], strict=False))


def _changes(images: np.ndarray) -> np.ndarray:
    """Return how much each picture differs from the one before, 0 to 1: of its pixels, in
    brightness and colour.
    """
    small = images.astype(np.float32) / 255
    bright = small.mean(3, keepdims=True)
    colour = small - bright
    pixels = np.concatenate([bright, 2 * colour], 3)  # colour changes less, and says more
    return np.abs(np.diff(pixels, axis=0)).mean((1, 2, 3)) * 2


def _usual_around(change: np.ndarray) -> np.ndarray:
    """Return the median of the changes around each one, itself left out; none count as 0."""
    padded = np.pad(change, _AROUND)
    places = [k for k in range(2 * _AROUND + 1) if k != _AROUND]
    return np.median([padded[k : k + len(change)] for k in places], axis=0)
