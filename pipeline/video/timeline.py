"""Which source frame every slot of a clip shows: exact arithmetic on timestamps, one frame after
another.

Times are ticks of the stream's time base (int, or Fraction where a time had to be made up).
Everything is rational:
ffmpeg's own rule has ties at common rates (30 to 3 fps), which floats break by chance.
Source: docs/specs/preprocessing.md, sections 1.2, 1.7, 3.6; ties and repeats across gaps as in
ffmpeg 5.1's constant-rate output.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from pipeline.video.frame_rule import FrameChoice

Time = int | Fraction
UNKNOWN_RATE = Fraction(25)
_SLACK = Fraction(1, 1_000_000)  # seconds


@dataclass(frozen=True)
class Timing:
    """tick: seconds per unit of time. step: seconds from one frame to the next, 1 / average
    rate.
    """

    tick: Fraction
    step: Fraction


def select(choice: FrameChoice, times: Iterable[Time], timing: Timing) -> Iterator[tuple[int, int]]:
    """Yield (frame index, number of slots it fills); indices never decrease, the same one may come
    twice in a row.

    Lazy: while frame i has just been taken from `times`, only i and i - 1 are ever yielded.
    """
    return _RULES[_effective_rule(choice, timing)](choice, times, timing)


def clip_rate(choice: FrameChoice, timing: Timing) -> Fraction:
    """Frames per second of the result."""
    if choice.rule in ("all", "half-second", "indices"):
        source = 1 / timing.step
        return Fraction(2) if choice.rule == "half-second" and source >= 2 else source
    return choice.fps


class FrameClock:
    """Turns the timestamps of decoded frames, as they come, into strictly increasing times.

    A missing time is one step after the previous one; before the first known one, it keeps its
    distance from that. A time that does not increase moves to one step after the previous one.
    moved: whether any did.
    """

    def __init__(self, timing: Timing):
        step = timing.step / timing.tick
        self._step: Time = step.numerator if step.denominator == 1 else step
        self._last: Time | None = None
        self._shift: Time | None = None
        self.moved = False

    def __call__(self, stamp: int | None, late: bool = False) -> Time:
        """Return the time of the next frame. late: a stamp that does not increase is right, but the
        frame comes too late (its neighbours were lost); it follows at once, so that the frames
        after it keep their times.
        """
        following = 0 if self._last is None else self._last + self._step
        if stamp is None:
            self._last = following
            return following
        if self._shift is None:  # frames before the first stamp were counted from 0
            self._shift = 0 if self._last is None else following - stamp
        time = stamp + self._shift
        if self._last is not None and time <= self._last:
            time = self._last + 1 if late else following
            self.moved = self.moved or not late
        self._last = time
        return time


def _effective_rule(choice: FrameChoice, timing: Timing) -> str:
    rate = 1 / timing.step
    if choice.rule == "half-second" and rate < 2:
        return "all"
    if choice.rule.startswith("published") and rate < choice.fps:
        return "grid"  # two versions of ffmpeg differ here, so there is nothing to agree with
    return choice.rule


def _every_frame(
    choice: FrameChoice, times: Iterable[Time], timing: Timing
) -> Iterator[tuple[int, int]]:
    for index, _ in enumerate(times):
        yield index, 1


def _half_second(
    choice: FrameChoice, times: Iterable[Time], timing: Timing
) -> Iterator[tuple[int, int]]:
    rate = math.floor(1 / timing.step)
    for index, _ in enumerate(times):
        if index % rate in (0, rate // 2):
            yield index, 1


def _by_number(
    choice: FrameChoice, times: Iterable[Time], timing: Timing
) -> Iterator[tuple[int, int]]:
    wanted = Counter(choice.indices)
    for index, _ in enumerate(times):
        if wanted[index]:
            yield index, wanted[index]


def _grid(choice: FrameChoice, times: Iterable[Time], timing: Timing) -> Iterator[tuple[int, int]]:
    slot = 0
    index = -1
    elapsed = Fraction(0)
    start = None
    next_slot: Time = 0  # ticks after the start from which on slot `slot` shows a later frame
    for index, time in enumerate(times):
        if start is None:
            start, next_slot = time, _SLACK / timing.tick
            continue
        elapsed = time - start
        if elapsed <= next_slot:
            continue
        filled = math.ceil((elapsed * timing.tick - _SLACK) * choice.fps)
        yield index - 1, filled - slot
        slot, next_slot = filled, (filled / choice.fps + _SLACK) / timing.tick
    if index >= 0:
        seconds = elapsed * timing.tick + timing.step
        total = max(1, math.ceil(seconds * choice.fps - _SLACK))
        if total > slot:
            yield index, total - slot


def _published(
    tau: Fraction, repeats: Callable[[Fraction, Fraction, int], tuple[int, int]]
) -> Callable:
    def rule(
        choice: FrameChoice, times: Iterable[Time], timing: Timing
    ) -> Iterator[tuple[int, int]]:
        slot, start = 0, None
        next_slot: Time = 0
        for index, time in enumerate(times):
            start = time if start is None else start
            if time - start < next_slot:
                continue
            position = (time - start) * timing.tick * choice.fps
            again, new = repeats(position, position + timing.step * choice.fps - slot, slot)
            if again and index:
                yield index - 1, again
            yield index, new
            slot += again + new
            next_slot = ((slot - tau) / choice.fps - timing.step) / timing.tick

    return rule


def _repeats_constant(position: Fraction, lead: Fraction, slot: int) -> tuple[int, int]:
    """Slots for the previous and for this frame, when this frame ends `lead` slots after the slot
    to fill.
    """
    if lead <= Fraction(11, 10):
        return 0, 1
    total, ahead = round(lead), position - slot
    again = min(round(ahead - Fraction(6, 10)), total - 1) if ahead > Fraction(11, 10) else 0
    return again, total - again


def _repeats_variable(position: Fraction, lead: Fraction, slot: int) -> tuple[int, int]:
    return max(0, round(position) - slot) if lead > Fraction(6, 10) else 0, 1


_RULES: dict[str, Callable] = {
    "all": _every_frame,
    "half-second": _half_second,
    "indices": _by_number,
    "grid": _grid,
    "published": _published(Fraction(11, 10), _repeats_constant),
    "published-vfr": _published(Fraction(6, 10), _repeats_variable),
}
