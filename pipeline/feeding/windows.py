"""Windows in a video, and which frames of it a model sees of each: what an index is made of.

The first window is the whole video, seen as the evaluation sees it. Frames that several windows
show are read once.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.errors import ItemError
from pipeline.feeding.frame_choice import Samples, choose, stride
from pipeline.recipes.options import FrameOptions
from pipeline.stores.frame_store.reader import FrameStore
from pipeline.stores.tensor_cache.reader import TensorCache
from pipeline.video.crop import fit_square
from pipeline.video.frame_rule import FrameChoice, Limits, SizeRule
from pipeline.video.frame_times import FrameTimes, frame_times
from pipeline.video.moment import Moment
from pipeline.video.reader import iterate_clip
from pipeline.video.shots import shot_spans

Span = tuple[float, float]


@dataclass(frozen=True)
class Cutting:
    """Where windows lie. window, stride: seconds; window 0: only the whole video. shots: cut where
    the picture changes, instead.
    """

    window: float = 10.0
    stride: float = 5.0
    shots: bool = False


@dataclass(frozen=True)
class Seen:
    """How a model sees a video: m frames of `size` pixels by the options of its recipe."""

    m: int
    size: int
    options: FrameOptions


@dataclass(frozen=True)
class Windows:
    """The windows of a video. spans float32 (W, 2), seconds, NaN for an end nobody knows. index
    int64 (W, m): places in `frames`; real int64 (W,): how many of them are no repeats. frames uint8
    (F, S, S, 3).
    """

    spans: np.ndarray
    index: np.ndarray
    real: np.ndarray
    frames: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.frames.nbytes


@dataclass(frozen=True)
class Read:
    """Windows, and how sound the video is, as ClipReader says it."""

    windows: Windows
    status: str = "ok"
    reason: str = ""
    message: str = ""


def spans_of(seconds: float, cutting: Cutting) -> list[Span]:
    """Return the whole video, then windows of even length; the last one ends with the video.

    A video that is no longer than a window has none.
    """
    found = [(0.0, seconds)]
    if not cutting.window or seconds <= cutting.window:
        return found
    start = 0.0
    while start + cutting.window - cutting.stride < seconds:
        found.append((start, min(start + cutting.window, seconds)))
        start += cutting.stride
    return found


def of_file(
    source: Path | bytes,
    seen: Seen,
    cutting: Cutting,
    limits: Limits,
    moment: Moment | None = None,
) -> Read:
    """Return the windows of a video file, or of its bytes. moment: only that part of it; spans are
    those of the file.

    Only the frames that are seen are decoded (and what they refer to). ItemError as
    `video.reader.decode_clip`.
    """
    whole = frame_times(source, limits)
    inside = _inside(whole, moment)
    offset = whole.ms[inside[0]]
    times = replace(whole, ms=whole.ms[inside] - offset)
    spans = spans_of(times.seconds, cutting)
    if cutting.shots and moment is None:
        spans = [spans[0], *shot_spans(source, limits, times.seconds)]
    plan = _plan(times, spans, seen)
    numbers = inside[plan.frames]
    size = SizeRule("short", seen.size) if seen.options.fit == "resize_crop" else None
    wanted = FrameChoice("indices", indices=tuple(numbers.tolist()))
    reader = iterate_clip(source, wanted, size, limits)
    frames = np.empty((len(numbers), seen.size, seen.size, 3), np.uint8)
    place = -1
    for frame in reader:
        place = int(np.searchsorted(numbers, frame.source_index))
        frames[place] = fit_square(frame.image[None], seen.size, seen.options.fit)[0]
    if place < 0:
        raise ItemError("no_frames", "no frame decodes")
    # fewer frames decode than the packets promised: the last one that does is shown instead
    windows = plan.windows(frames[: place + 1], np.minimum(plan.index, place))
    windows = replace(windows, spans=windows.spans + np.float32(offset / 1000))
    return Read(windows, reader.status, reader.reason, reader.message)


def _inside(times: FrameTimes, moment: Moment | None) -> np.ndarray:
    """Numbers of the frames that are shown in a moment. ItemError no_frames: none is."""
    start = (moment.start or 0.0) if moment else 0.0
    end = np.inf if moment is None or moment.end is None else moment.end
    inside = np.flatnonzero((times.ms >= 1000 * start) & (times.ms < 1000 * end))
    if not len(inside):
        raise ItemError("no_frames", "no frame decodes, or none in the moment that is asked for")
    return inside


def of_store(store: FrameStore, video_id: str, seen: Seen, cutting: Cutting) -> Windows:
    """Return the windows of a video in a frame store that keeps times. KeyError, DataError as
    `read`.
    """
    info = store.info(video_id)
    times = FrameTimes(info.times_ms.astype(np.int64), 1000 / float(info.fps))
    options = seen.options
    every = options.every * stride(info.fps, options.fps)
    strided = options.model_copy(update={"fps": None, "every": every})
    plan = _plan(times, spans_of(times.seconds, cutting), replace(seen, options=strided))
    images = store.read(video_id, plan.frames)
    return plan.windows(fit_square(images, seen.size, seen.options.fit), plan.index)


def of_cache(
    cache: TensorCache, video_id: str, seen: Seen, cutting: Cutting, fps: float | None
) -> Windows:
    """Return the windows of cached frames; fps: of the cache, without it only the whole video.

    A cache of a higher rate than the model's is read at every n-th frame, as `evaluate` does.
    """
    n = cache.shape(video_id)[0]
    times, spans = _unstated(n, fps, cutting)
    options = seen.options
    every = options.every * stride(fps, options.fps)
    strided = options.model_copy(update={"fps": None, "every": every})
    plan = _plan(times, spans, replace(seen, options=strided))
    frames = cache.gather([video_id], plan.frames[None])[0]
    found = plan.windows(frames, plan.index)
    return found if fps else replace(found, spans=_unknown_end(found.spans))


def of_rows(n: int, fps: float | None, cutting: Cutting) -> tuple[np.ndarray, list[slice]]:
    """Spans float32 (W, 2) and rows of a video of n rows of features, at `fps` rows per second."""
    times, spans = _unstated(n, fps, cutting)
    kept, rows = [], []
    for start, end in spans:
        first, last = np.searchsorted(times.ms, [1000 * start, 1000 * end]).tolist()
        if last > first:
            kept.append((start, end))
            rows.append(slice(first, last))
    found = np.array(kept, np.float32)
    return (found if fps else _unknown_end(found)), rows


def _unstated(n: int, fps: float | None, cutting: Cutting) -> tuple[FrameTimes, list[Span]]:
    rate = fps or 1.0
    times = FrameTimes(np.rint(np.arange(n) * (1000 / rate)).astype(np.int64), 1000 / rate)
    return times, spans_of(times.seconds, cutting if fps else Cutting(0))


def _unknown_end(spans: np.ndarray) -> np.ndarray:
    return np.stack([spans[:, 0], np.full(len(spans), np.nan, np.float32)], 1)


@dataclass(frozen=True)
class _Plan:
    """spans (W, 2); index (W, m): places in `frames`, which are numbers of the source's frames."""

    spans: np.ndarray
    index: np.ndarray
    real: np.ndarray
    frames: np.ndarray

    def windows(self, frames: np.ndarray, index: np.ndarray) -> Windows:
        return Windows(self.spans, index, self.real, frames)


def _plan(times: FrameTimes, spans: list[Span], seen: Seen) -> _Plan:
    """Return which frames each window shows; windows without any are left out."""
    options = seen.options
    shown = np.arange(len(times.ms))
    at = times.ms.astype(np.float64)
    if options.fps:
        shown = _on_grid(times, options.fps)
        at = np.arange(len(shown)) * (1000 / options.fps)
    bounds = np.array(spans) * 1000  # (W, 2)
    first = np.searchsorted(at, bounds[:, 0] - 1e-06)
    last = np.searchsorted(at, bounds[:, 1] - 1e-06)
    first[0], last[0] = 0, len(at)
    last = np.where(bounds[:, 1] >= bounds[0, 1], len(at), last)
    kept = last > first
    first, counts = first[kept], (last - first)[kept]
    samples = Samples(0, 0, np.zeros(len(counts), np.int64))
    index, real = choose(
        counts,
        seen.m,
        mode=options.evaluation,
        samples=samples,
        every=options.every,
        order=options.evaluation_order,
    )
    numbers = shown[first[:, None] + index]
    frames, places = np.unique(numbers, return_inverse=True)
    found = np.array(spans, np.float32)[kept]
    return _Plan(found, places.reshape(numbers.shape), real, frames)


def _on_grid(times: FrameTimes, fps: float) -> np.ndarray:
    """Return the last frame at or before every 1/fps seconds, int64 (K,)."""
    n_slots = max(1, math.ceil(times.seconds * fps - 0.01))  # as the grid of a decoded clip
    slots = np.arange(n_slots) * (1000 / fps)
    # a time was rounded to a millisecond
    return np.searchsorted(times.ms, slots + 0.5, side="right").astype(np.int64) - 1
