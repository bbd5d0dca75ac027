"""Decode the chosen frames of a video and say how sound it is.

Packets are read first. Where their timestamps tell which frame is which, only reference frames and
wanted frames are decoded, pixel for pixel what decoding everything gives. At the first sign of
trouble the file is decoded again in full, with errors counted; what was already handed out stays
valid, as both ways agree up to the trouble.
Source: docs/specs/preprocessing.md, sections 3.4, 3.5, 4.1.
"""

import contextlib
import errno
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from pipeline.errors import ItemError
from pipeline.video.container import OpenVideo, Scan, check_frame, open_video, packets_of, scan
from pipeline.video.frame_rule import FrameChoice, Limits
from pipeline.video.timeline import FrameClock, Time, clip_rate, select

_MAX_FLUSHES = 100


@dataclass(frozen=True)
class Chosen:
    """A decoded frame that fills `repeats` slots. time_ms: since the first frame. index: among all
    frames.
    """

    frame: VideoFrame
    time_ms: int
    index: int
    repeats: int


@dataclass
class Verdict:
    """How reading went; complete when the last frame was handed out.

    fps: of the result; pixel_aspect: of the source, None if unknown. Both are known with the first
    frame.
    """

    decoded: int = 0
    fps: Fraction = Fraction(0)
    pixel_aspect: Fraction | None = None
    status: Literal["ok", "damaged"] = "ok"
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Survey:
    """What to expect of a video. stream: index of the film. slots: frames of the result.

    tolerance: slots by which programs differ that end a clip in another way. is_suspect: the
    packets do not tell for certain; `examine` does. decoded, status, reason, message: as in
    Verdict.
    """

    stream: int
    slots: int
    tolerance: int
    is_suspect: bool
    decoded: int
    status: Literal["ok", "damaged"] = "ok"
    reason: str = ""
    message: str = ""


class _DoubtError(Exception):
    """What came out of the decoder is not what the packets promised."""


@dataclass
class _Faults:
    """Errors by the number of the packet at which they showed."""

    at: list[int] = field(default_factory=list)
    first: str = ""
    last_good: int = -1

    def add(self, number: int, message: str) -> None:
        self.first = self.first or message
        self.at.append(number)

    def only_at_the_end(self) -> bool:
        return not self.at or min(self.at) > self.last_good


def chosen_frames(
    source: Path | bytes, choice: FrameChoice, limits: Limits, verdict: Verdict, skip: bool = True
) -> Iterator[Chosen]:
    """Yield the chosen frames in order, and fill in `verdict`. skip=False decodes everything.

    ItemError as `video.decode_clip`.
    """
    handed_out = 0
    with open_video(source, limits) as video:
        found = scan(video)
        verdict.fps, verdict.pixel_aspect = (
            clip_rate(choice, video.timing),
            video.stream.sample_aspect_ratio,
        )
        if not (skip and is_regular(video, found)):
            with _packets(source, video, found, limits) as (video, packets):
                yield from _everything(
                    video, packets, found=found, choice=choice, limits=limits, verdict=verdict
                )
            return
        try:
            with _packets(source, video, found, limits) as (video, packets):
                for chosen in _planned(
                    video, packets, found=found, choice=choice, limits=limits, verdict=verdict
                ):
                    handed_out += chosen.repeats
                    yield chosen
            return
        except _DoubtError:
            found.packets = None
    with open_video(source, limits) as video:
        again = _everything(
            video, packets_of(video), found=found, choice=choice, limits=limits, verdict=verdict
        )
        yield from _after(handed_out, again)


@contextlib.contextmanager
def _packets(
    source: Path | bytes, video: OpenVideo, found: Scan, limits: Limits
) -> Iterator[tuple[OpenVideo, Iterable[Packet | Exception]]]:
    if found.packets is not None and not found.faults:
        yield video, found.packets
        return
    with open_video(source, limits) as again:
        yield again, packets_of(again)


def _after(slots: int, frames: Iterator[Chosen]) -> Iterator[Chosen]:
    """Drop the first `slots` slots."""
    for chosen in frames:
        left = max(0, chosen.repeats - slots)
        slots -= chosen.repeats - left
        if left:
            yield replace(chosen, repeats=left)


def is_regular(video: OpenVideo, found: Scan) -> bool:
    """Return whether the timestamp of a packet names the frame that it holds."""
    if found.faults or not found.stamps or not found.starts_with_key:
        return False
    # a codec that reorders frames, in a container that does not say how (H.264 in AVI)
    if found.ascending and video.stream.codec_context.has_b_frames:
        return False
    return len(set(found.stamps)) == len(found.stamps)


def survey(source: Path | bytes, choice: FrameChoice, limits: Limits) -> Survey:
    """Return what the packets of a video promise; nothing is decoded. ItemError as
    `video.decode_clip`.
    """
    with open_video(source, limits) as video:
        found = scan(video)
        slots = 0
        regular = is_regular(video, found)
        if regular:
            slots = sum(
                repeats for _, repeats in _plan(video, sorted(found.stamps), choice, limits)
            )
        is_suspect = (
            not regular
            or video.is_cut_short
            or video.lost_packets(found)
            or video.ends_early(found)
        )
        return Survey(
            video.stream.index, slots, _tolerance(choice, video), bool(is_suspect), found.count
        )


def examine(source: Path | bytes, choice: FrameChoice, limits: Limits) -> Survey:
    """The same with everything decoded: nothing in it is suspect any more."""
    with open_video(source, limits) as video:
        found, verdict = scan(video), Verdict()
        with _packets(source, video, found, limits) as (video, packets):
            slots = sum(
                c.repeats
                for c in _everything(
                    video, packets, found=found, choice=choice, limits=limits, verdict=verdict
                )
            )
        tolerance = _tolerance(choice, video)
        return Survey(
            stream=video.stream.index,
            slots=slots,
            tolerance=tolerance,
            is_suspect=False,
            decoded=verdict.decoded,
            status=verdict.status,
            reason=verdict.reason,
            message=verdict.message,
        )


def _tolerance(choice: FrameChoice, video: OpenVideo) -> int:
    return 2 + math.ceil(choice.fps * video.timing.step)


def _plan(
    video: OpenVideo, stamps: list[int], choice: FrameChoice, limits: Limits
) -> list[tuple[int, int]]:
    _check_duration((stamps[-1] - stamps[0]) * video.timing.tick, limits)
    plan = list(select(choice, stamps, video.timing))
    _check_repeats(sum(repeats for _, repeats in plan), len(stamps), limits)
    return plan


def _planned(
    video: OpenVideo,
    packets: Iterable[Packet],
    found: Scan,
    choice: FrameChoice,
    limits: Limits,
    verdict: Verdict,
) -> Iterator[Chosen]:
    stamps, tick = sorted(found.stamps), video.timing.tick
    plan = _plan(video, stamps, choice, limits)
    slots = iter(plan)
    expected = next(slots, None)
    previous = None
    for frame in decode_packets(
        video.stream.codec_context, packets, _doubt, {stamps[index] for index, _ in plan}
    ):
        if (
            frame.pts is None
            or frame.is_corrupt
            or (previous is not None and frame.pts <= previous)
        ):
            raise _DoubtError
        previous = stamp = frame.pts  # whoever gets the frame may change it
        while expected and stamp == stamps[expected[0]]:
            check_frame(frame.width, frame.height, limits)
            yield Chosen(frame, _milliseconds(stamp - stamps[0], tick), *expected)
            expected = next(slots, None)
        if expected and stamp > stamps[expected[0]]:
            raise _DoubtError
    if expected:
        raise _DoubtError
    verdict.decoded = len(stamps)
    _judge(verdict, video, found, _Faults(), moved=False)


def _everything(
    video: OpenVideo,
    packets: Iterable[Packet | Exception],
    found: Scan,
    choice: FrameChoice,
    limits: Limits,
    verdict: Verdict,
) -> Iterator[Chosen]:
    faults, clock = _Faults(), FrameClock(video.timing)
    held: dict[int, tuple[VideoFrame, Time]] = {}

    def times() -> Iterator[Time]:
        for index, (frame, time) in enumerate(_timed(video, packets, found, faults, clock)):
            check_frame(frame.width, frame.height, limits)
            held[index] = frame, time
            held.pop(index - 2, None)
            verdict.decoded = index + 1
            yield time

    start, slots = None, 0
    for index, repeats in select(choice, times(), video.timing):
        frame, time = held[index]
        start = time if start is None else start
        _check_duration((time - start) * video.timing.tick, limits)
        slots += repeats
        _check_repeats(slots, max(found.count, verdict.decoded), limits)
        yield Chosen(frame, _milliseconds(time - start, video.timing.tick), index, repeats)
    if not verdict.decoded:
        why = (
            f"nothing could be decoded: {faults.first}"
            if faults.first
            else "there are no pictures in it"
        )
        raise ItemError("no_frames", why)
    _check_repeats(slots, verdict.decoded, limits)
    _judge(verdict, video, found, faults, clock.moved)


def _timed(
    video: OpenVideo,
    packets: Iterable[Packet | Exception],
    found: Scan,
    faults: _Faults,
    clock: FrameClock,
) -> Iterator[tuple[VideoFrame, Time]]:
    """Yield all frames from the first key frame on, with increasing times."""
    codec = video.stream.codec_context
    # AVI counts pictures in the order they are stored; in the order they are shown the counts are
    # the same, sorted
    is_counted = (
        found.stamps
        and found.ascending
        and codec.has_b_frames
        and video.container.format.name == "avi"
    )
    counted = iter(sorted(found.stamps)) if is_counted else None
    started = False
    for frame in decode_packets(codec, packets, faults.add, good=faults):
        started = started or frame.key_frame
        if not started:
            continue
        yield (
            frame,
            clock(frame.pts if counted is None else next(counted, None), late=bool(faults.at)),
        )


def decode_packets(
    codec: VideoCodecContext,
    packets: Iterable[Packet | Exception],
    fault: Callable[[int, str], None],
    wanted: set[int] | None = None,
    good: _Faults | None = None,
) -> Iterator[VideoFrame]:
    """Frames as they come. wanted: pts of the packets that must be decoded; of the others,
    references are enough.
    """
    skipping, number = False, -1
    for number, packet in enumerate(packets):
        if isinstance(packet, Exception):
            fault(number, _sentence(packet))
            continue
        if wanted is not None and (packet.pts in wanted) == skipping:
            skipping = not skipping
            codec.skip_frame = "NONREF" if skipping else "DEFAULT"
        frames = _attempt(codec, packet, number, fault)
        if packet.is_corrupt:
            fault(number, "a packet is cut short")
        for frame in frames:
            if frame.is_corrupt:
                fault(number, "a frame is incomplete")
            elif good is not None:
                good.last_good = number
            yield frame
    for _ in range(
        _MAX_FLUSHES
    ):  # every error ends one attempt to get at the frames that are still inside
        try:
            frames = codec.decode(None)
        except EOFError:
            return
        except av.FFmpegError as error:
            fault(number, _sentence(error))
            continue
        for frame in frames:
            if frame.is_corrupt:
                fault(number, "a frame is incomplete")
            yield frame
        return


def _attempt(
    codec: VideoCodecContext, packet: Packet, number: int, fault: Callable[[int, str], None]
) -> list[VideoFrame]:
    try:
        return codec.decode(packet)
    except av.FFmpegError as error:
        if error.errno == errno.ENOMEM:
            raise ItemError(
                "out_of_memory", "decoding it needs more memory than a worker may use"
            ) from error
        fault(number, _sentence(error))
        return []


def _doubt(number: int, message: str) -> None:
    raise _DoubtError(message)


def _sentence(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _milliseconds(ticks: Time, tick: Fraction) -> int:
    return round(ticks * tick * 1000)


def _check_duration(seconds: Fraction, limits: Limits) -> None:
    if seconds > limits.max_duration:
        raise ItemError(
            "too_long",
            f"its timestamps span {float(seconds):,.1f} s; {limits.max_duration:,.1f} s are"
            " allowed",
        )


def _check_repeats(slots: int, decoded: int, limits: Limits) -> None:
    if slots > limits.max_repeat_frames and slots > 4 * decoded:
        raise ItemError(
            "too_long",
            f"{slots:,} frames would repeat {decoded:,} source frames; {limits.max_repeat_frames:,}"
            " are allowed",
        )


def _judge(verdict: Verdict, video: OpenVideo, found: Scan, faults: _Faults, moved: bool) -> None:
    is_whole = video.declared is not None and not video.is_cut_short
    lost = video.lost_packets(found)
    early = lost or video.ends_early(found)
    if video.is_cut_short:
        reason = "truncated"
        cause = f"the file ends after {video.size:,} of at least {video.declared:,} bytes"
    elif faults.at or early:
        reason = "truncated" if not is_whole and faults.only_at_the_end() else "decode_errors"
        cause = (
            f"{len(faults.at):,} faults, the first: {faults.first}"
            if faults.at
            else "a part cannot be read"
        )
    elif moved:
        reason, cause = (
            "bad_timestamps",
            "some timestamps do not increase; such frames follow the one before",
        )
    else:
        return
    verdict.status, verdict.reason = "damaged", reason
    total = found.count + lost
    of = f" of {total:,}" if total > verdict.decoded else ""
    verdict.message = f"{verdict.decoded:,}{of} frames could be decoded; {cause}"
