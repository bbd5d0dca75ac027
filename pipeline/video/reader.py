"""Read videos: what is in a file, chosen frames, whole clips; upright, in order of time, whatever
the file.

`source` is a path or the bytes of a video file. All pictures are uint8 RGB in displayed
orientation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.frame import VideoFrame

from pipeline.errors import ItemError
from pipeline.video.container import check_frame, open_video, packets_of
from pipeline.video.decode import Chosen, Verdict, chosen_frames, decode_packets
from pipeline.video.frame_rule import FrameChoice, FrameRule, Limits, SizeRule
from pipeline.video.moment import Moment, within
from pipeline.video.picture import Orientation, Shaper, shown_size

__all__ = [
    "Clip", "ClipReader", "Frame", "FrameChoice", "FrameRule", "Limits", "SizeRule", "VideoInfo",
    "decode_clip", "iterate_clip", "probe", "read_frames",
]  # fmt: skip

Source = Path | bytes


@dataclass(frozen=True)
class VideoInfo:
    """frames: what the container claims, None if it claims nothing; not a count. width, height: as
    displayed.
    """

    frames: int | None
    fps: Fraction
    seconds: float
    width: int
    height: int
    codec: str


@dataclass(frozen=True)
class Frame:
    """One picture of a clip, shown in `repeats` slots in a row.

    image: uint8 (H, W, 3) RGB, yours to keep. time_ms: since the first frame of the source.
    source_index: its place among the frames that decode, from 0.
    """

    image: np.ndarray
    time_ms: int
    source_index: int
    repeats: int


@dataclass(frozen=True)
class Clip:
    """images: uint8 (T, H, W, 3) RGB. times_ms: int64 (T,), time of the shown source frame since
    the first one.
    source_index: int64 (T,). fps: of the result (for the rules all and half-second: of the source).
    decoded: source frames that decode. damaged: usable, `reason` and `message` say what is lost.
    """

    images: np.ndarray
    times_ms: np.ndarray
    fps: Fraction
    source_index: np.ndarray
    decoded: int
    status: Literal["ok", "damaged"]
    reason: str
    message: str


def probe(source: Source) -> VideoInfo:
    """Return what the header says, and one decoded frame for size and rotation. ItemError as
    `decode_clip`.
    """
    limits = Limits()
    with open_video(source, limits) as video:
        faults: list[str] = []
        stream = video.stream
        first = next(
            decode_packets(
                stream.codec_context, packets_of(video), lambda _, what: faults.append(what)
            ),
            None,
        )
        if first is None:
            raise ItemError(
                "no_frames", f"nothing decodes{': ' if faults else ''}{faults[0] if faults else ''}"
            )
        check_frame(first.width, first.height, limits)
        width, height = shown_size(first, None, Orientation.of(first))
        fps = 1 / video.timing.step
        if stream.duration:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (video.container.duration or 0) / av.time_base
        return VideoInfo(
            frames=stream.frames or None,
            fps=fps,
            seconds=seconds,
            width=width,
            height=height,
            codec=stream.codec_context.codec.canonical_name,
        )


def read_frames(source: Source, indices: Sequence[int]) -> np.ndarray:
    """Return the frames at `indices` (from 0, in presentation order, any order, repeats allowed),
    uint8 (T, H, W, 3) RGB.

    Raises ItemError("missing") if fewer frames decode than asked for, and as `decode_clip`;
    ValueError for a negative or absent index.
    """
    if not len(indices) or min(indices) < 0:
        raise ValueError(f"frame numbers start at 0, got {list(indices)}")
    reader = iterate_clip(source, FrameChoice("indices", indices=tuple(int(i) for i in indices)))
    images = {frame.source_index: frame.image for frame in reader}
    if max(indices) not in images:
        raise ItemError(
            "missing",
            f"frame {max(indices)} was asked for, but only {reader.decoded:,} frames decode",
        )
    return np.stack([images[int(i)] for i in indices])


def decode_clip(
    source: Source,
    choice: FrameChoice,
    size: SizeRule | None = None,
    limits: Limits | None = None,
    moment: Moment | None = None,
) -> Clip:
    """Return the chosen frames of a video at the wanted size (None: as displayed). moment: only of
    this part.

    Raises ItemError: empty, unreadable, forbidden_format, no_video_stream, no_frames, too_large,
    too_long, extreme_aspect, io_error, out_of_memory.
    """
    reader = iterate_clip(source, choice, size, limits, moment)
    frames = list(reader)
    repeats = [frame.repeats for frame in frames]
    images = np.empty((sum(repeats), *frames[0].image.shape) if frames else (0, 0, 0, 3), np.uint8)
    slot = 0
    for frame in frames:
        images[slot : slot + frame.repeats] = frame.image
        slot += frame.repeats
    return Clip(
        images=images,
        times_ms=np.repeat(np.array([f.time_ms for f in frames], np.int64), repeats),
        fps=reader.fps,
        source_index=np.repeat(np.array([f.source_index for f in frames], np.int64), repeats),
        decoded=reader.decoded,
        status=reader.status,
        reason=reader.reason,
        message=reader.message,
    )


def iterate_clip(
    source: Source,
    choice: FrameChoice,
    size: SizeRule | None = None,
    limits: Limits | None = None,
    moment: Moment | None = None,
) -> "ClipReader":
    """As `decode_clip`, frame by frame."""
    return ClipReader(source, choice, size, limits or Limits(), moment)


class ClipReader:
    """The frames of a clip one by one, so that memory stays bounded: `for frame in reader`, once.

    width, height, fps: of the result, known with the first frame. decoded, status, reason, message:
    as in Clip, known at the end. A frame may come twice in a row; its slots then add up.
    """

    def __init__(
        self,
        source: Source,
        choice: FrameChoice,
        size: SizeRule | None,
        limits: Limits,
        moment: Moment | None = None,
    ):
        self._moment = moment
        self._notes: list[str] = []  # of the shaper, which fills them
        self.width = self.height = 0
        self._arguments = source, choice, limits
        self._size = size
        self._verdict = Verdict()

    def __iter__(self) -> Iterator[Frame]:
        shaper, last, image = None, None, None
        for chosen in self.chosen():
            shaper = shaper or self.shaper(chosen.frame)
            if chosen.index != last:
                image, last = shaper.rgb(chosen.frame), chosen.index
            yield Frame(image, chosen.time_ms, chosen.index, chosen.repeats)

    def chosen(self) -> Iterator[Chosen]:
        """The same frames as the decoder gives them, not scaled or turned (see
        `pipeline/video/picture.py`: Shaper).
        """
        source, choice, limits = self._arguments
        frames = chosen_frames(source, choice, limits, self._verdict)
        if self._moment is None:
            return frames
        return within(frames, self._moment, choice.fps if choice.is_grid else None)

    def shaper(self, first: VideoFrame) -> Shaper:
        """Return what gives the frames of this clip their size and orientation.
        ItemError("extreme_aspect").
        """
        shaper = Shaper(first, self._size, self._verdict.pixel_aspect, self._arguments[-1])
        self.width, self.height = shaper.width, shaper.height
        self._notes = shaper.notes
        return shaper

    @property
    def fps(self) -> Fraction:
        return self._verdict.fps

    @property
    def decoded(self) -> int:
        return self._verdict.decoded

    @property
    def status(self) -> Literal["ok", "damaged"]:
        return self._verdict.status

    @property
    def reason(self) -> str:
        return self._verdict.reason

    @property
    def message(self) -> str:
        """What is lost of a damaged file, and what was done to its picture: "" for most files."""
        return "; ".join(filter(None, [self._verdict.message, *self._notes]))
