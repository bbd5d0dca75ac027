"""Write small H.264 files, and check that a file is what was planned.

The bytes depend on the frames and the options alone: one encoding thread, no times, no names of
tools.
Source: docs/specs/preprocessing.md, section 4.2.
"""

import contextlib
import functools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from pipeline.errors import ItemError

# Inter partitions below 16x8 cost veryfast 18 % of its time at these sizes and gain next to
# nothing: without them the results were 0 to 4 % larger at -0.1 to +0.2 dB (four clips, three of
# them real).
_TUNED = {"veryfast": {"partitions": "i8x8,i4x4"}}
_SHORT_GOP = 30  # below it the file is meant for random reads, and B-frames only make those dearer
_UNSPECIFIED = 2  # the same number for matrix, primaries and transfer


@functools.cache
def repeatable() -> dict[str, str]:
    """Options without which libx264 may write other bytes for the same frames.

    Its AVX-512 code for macroblock trees reads memory it never wrote (measured, x264 of av 18.1: 4
    to 7 different files in 20 encodings of one clip, 1 with AVX2 at the same speed). Processors
    without AVX-512 never take that path.
    """
    with contextlib.suppress(OSError):
        if "avx512f" in Path("/proc/cpuinfo").read_text():
            return {"x264-params": "asm=avx2"}
    return {}


@dataclass(frozen=True)
class Encoding:
    """crf: 0 best to 51 worst. preset: of x264. gop: frames from one key frame to the next, 1 = all
    intra.
    """

    crf: int = 23
    preset: str = "veryfast"
    gop: int = 250


class Mp4Writer:
    """H.264 yuv420p in mp4, index first, constant rate, one video stream and nothing else.

    `frames` counts what was written. Use as a context manager; after an error the file is not
    complete.
    """

    def __init__(self, path: Path, encoding: Encoding, fps: Fraction):
        self.frames = 0
        self._encoding, self._fps = encoding, fps
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._container = av.open(str(path), "w", format="mp4", options=options)
        self._stream = None

    def __enter__(self) -> "Mp4Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()

    def write(self, frame: VideoFrame, repeats: int = 1) -> None:
        """Append a yuv420p frame `repeats` times; the first one sets size and colour tags. Its time
        is overwritten.
        """
        if self._stream is None:
            self._stream = self._add_stream(frame)
        frame.pict_type = 0  # else the encoder would repeat the source's choice of key frames
        frame.time_base = 1 / self._fps
        for _ in range(repeats):
            frame.pts = self.frames
            self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def _add_stream(self, frame: VideoFrame) -> av.VideoStream:
        encoding = self._encoding
        options = {"preset": encoding.preset, "crf": str(encoding.crf), "g": str(encoding.gop)}
        options |= _TUNED.get(encoding.preset, {}) | repeatable()
        if encoding.gop < _SHORT_GOP:
            options["bf"] = "0"
        stream = self._container.add_stream("libx264", rate=self._fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
        codec = stream.codec_context
        codec.thread_count = 1
        codec.time_base = 1 / self._fps
        codec.color_range = frame.color_range or ColorRange.UNSPECIFIED
        # RGB sources say "no matrix"; what they became here is untagged
        codec.colorspace = frame.colorspace or _UNSPECIFIED
        codec.color_primaries = frame.color_primaries or _UNSPECIFIED
        codec.color_trc = frame.color_trc or _UNSPECIFIED
        return stream


def verify(path: Path, width: int, height: int, frames: int, every_frame: bool = False) -> None:
    """ItemError("io_error") unless `path` is one video stream of this size and number of frames
    that decodes.

    every_frame: decode all of them, not only the first.
    """
    try:
        found = _facts(path, every_frame)
    except (av.FFmpegError, IndexError) as error:
        raise ItemError("io_error", f"the result cannot be read back: {error}") from error
    if found != (1, width, height, frames):
        raise ItemError(
            "io_error",
            f"the result has {found[0]} streams of {found[1]}x{found[2]} with {found[3]} frames "
            f"instead of 1 of {width}x{height} with {frames}",
        )


def count_frames(path: Path) -> int:
    """Return the number of frames in a file just written. ItemError("io_error") if it cannot be
    read back.
    """
    try:
        return _facts(path, every_frame=False)[3]
    except (av.FFmpegError, IndexError) as error:
        raise ItemError("io_error", f"the result cannot be read back: {error}") from error


def _facts(path: Path, every_frame: bool) -> tuple[int, int, int, int]:
    """Return (streams, width, height, frames); frames is 0 if the first one does not decode."""
    options = {"protocol_whitelist": "file", "format_whitelist": "mov"}
    with av.open(f"file:{path}", "r", options=options) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        codec.thread_count, codec.thread_type = 1, "NONE"
        packets = decoded = 0
        for packet in container.demux(stream):
            packets += packet.size > 0
            if every_frame or not decoded:
                decoded += len(codec.decode(packet if packet.size else None))
        return (
            len(container.streams),
            stream.width,
            stream.height,
            decoded if every_frame or not decoded else packets,
        )
