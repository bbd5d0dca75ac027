"""Moments of a film: a part from `start` to `end` seconds that stands as a video of its own.

A moment has an id of its own, `<film>@<start>-<end>`, and is cut in one place, where frames come
out of the decoder: every step that reads a file therefore sees the same frames of it.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.video.decode import Chosen

_ID = re.compile(r"(.+)@([0-9]+(?:\.[0-9]+)?)-([0-9]+(?:\.[0-9]+)?)?")


@dataclass(frozen=True)
class Moment:
    """start, end: seconds since the first frame of the file; end None: to its end."""

    start: float = 0.0
    end: float | None = None

    def __str__(self) -> str:
        return f"{self.start:g} to {self.end:g} s" if self.end is not None else f"{self.start:g} s"

    @classmethod
    def of(cls, start: float | None, end: float | None) -> "Moment | None":
        """None if it is the whole file."""
        return cls(start or 0.0, end) if start or end is not None else None


def moment_id(film: str, moment: Moment) -> str:
    """Return the id of a moment of a film, with seconds to a thousandth: `film@1.5-4`."""
    end = "" if moment.end is None else _seconds(moment.end)
    return f"{film}@{_seconds(moment.start)}-{end}"


def parse_id(video_id: str) -> tuple[str, Moment] | None:
    """Return (film, moment) of an id that `moment_id` made, or None for any other id."""
    found = _ID.fullmatch(video_id)
    if not found:
        return None
    film, start, end = found.groups()
    return film, Moment(float(start), float(end) if end else None)


def only_whole(video_id: str, holds: Callable[[str], bool]) -> str:
    """Return why a store that is not cut lacks a video: it is a moment, and only its whole film is
    there. "" for any other video. holds: whether the store has a video of an id.
    """
    named = parse_id(video_id)
    if named is None or not holds(named[0]):
        return ""
    return "a moment of a film, and only the whole film is there"


def within(
    frames: Iterator["Chosen"], moment: Moment, slots_per_second: Fraction | None
) -> Iterator["Chosen"]:
    """Yield the frames that are shown from start to end, their times counted from its start; at
    least one, where the film lasts that long. What comes later is neither decoded nor judged.

    slots_per_second: of choices on a grid, whose k-th slot shows the film at k / fps; None: the
    time of each frame counts.
    """
    slot, before, found = 0, None, False
    shift = round(moment.start * 1000)
    with contextlib.closing(frames):
        for chosen in frames:
            first, last = _bounds(moment, slots_per_second)
            if slots_per_second is None:
                begin, stop = chosen.time_ms, chosen.time_ms + 1
            else:
                begin, stop = slot, slot + chosen.repeats
            slot += chosen.repeats
            if begin >= last:
                break
            if stop <= first:
                before = chosen
                continue
            repeats = chosen.repeats
            if slots_per_second is not None:
                repeats = int(min(stop, last) - max(begin, first))
            found = True
            time_ms = max(0, chosen.time_ms - shift)
            yield replace(chosen, repeats=repeats, time_ms=time_ms)
        else:
            return
    if not found and before is not None:  # a moment between two frames shows the earlier one
        yield replace(before, repeats=1, time_ms=0)


def _bounds(moment: Moment, fps: Fraction | None) -> tuple[float, float]:
    """First slot (or millisecond), and the one behind the last."""
    if fps is None:
        first = moment.start * 1000
        return first, float("inf") if moment.end is None else moment.end * 1000
    first = ceil(_exact(moment.start) * fps)
    if moment.end is None:
        return first, float("inf")
    last = ceil(_exact(moment.end) * fps)
    return min(first, last - 1), last


def _exact(seconds: float) -> Fraction:
    return Fraction(seconds).limit_denominator(10_000)


def _seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
