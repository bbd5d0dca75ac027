"""One decoded frame to one picture: displayed orientation, wanted size, RGB or planar YUV, right
colours.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from pipeline.errors import ItemError
from pipeline.video import hdr
from pipeline.video.frame_rule import Limits, SizeRule

_PLANAR = frozenset({"yuv420p", "yuvj420p"})


@dataclass(frozen=True)
class Orientation:
    """How a coded picture is turned to be shown: transpose it first, then mirror left-right and
    up-down.
    """

    transposed: bool = False
    mirrored: bool = False
    upside_down: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> "Orientation":
        """From the display matrix: (x, y) of the coded picture is shown at (a x + c y, b x + d
        y).
        """
        matrix = next((side for side in frame.side_data if side.type.name == "DISPLAYMATRIX"), None)
        if matrix is None:
            return cls()
        a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    def apply(self, plane: np.ndarray) -> np.ndarray:
        """Return a view of a (H, W) or (H, W, 3) array in displayed orientation."""
        shown = plane.swapaxes(0, 1) if self.transposed else plane
        shown = shown[:, ::-1] if self.mirrored else shown
        return shown[::-1] if self.upside_down else shown


def shown_size(
    frame: VideoFrame, pixel_aspect: Fraction | None, turn: Orientation
) -> tuple[int, int]:
    """Displayed width and height. pixel_aspect: None to ignore it."""
    width = frame.width
    if pixel_aspect:
        width = max(1, round(width * pixel_aspect))
    return (frame.height, width) if turn.transposed else (width, frame.height)


class Shaper:
    """Scales and turns the frames of one clip; what the first frame says about size and rotation
    holds for all. HDR becomes a picture for ordinary screens (pipeline/video/hdr.py).

    width, height: of the result. notes: what was done to the picture that its owner may not expect,
    complete when the last frame was handed in.
    """

    def __init__(
        self,
        first: VideoFrame,
        size: SizeRule | None,
        pixel_aspect: Fraction | None,
        limits: Limits,
    ):
        self.turn = Orientation.of(first)
        aspect = pixel_aspect if size is not None and size.square_pixels else None
        shown = shown_size(first, aspect, self.turn)
        self.width, self.height = (
            shown if size is None else size.target(*shown, limits.max_long_side)
        )
        self._coded = (
            (self.height, self.width) if self.turn.transposed else (self.width, self.height)
        )
        self._scaler, self._colours = VideoReformatter(), VideoReformatter()
        self._first = (first.width, first.height)
        self.notes: list[str] = []

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """uint8 (H, W, 3); a view of memory that nobody else uses. ItemError("decode_errors") for
        unknown formats.
        """
        width, height = self._coded
        self.note(frame)
        if hdr.is_hdr(frame):
            return self.turn.apply(self._tone_mapped(frame))
        if frame.format.name in _PLANAR and (frame.width, frame.height) != self._coded:
            # first to size, then to RGB: a third of the time of both at once, and what a lossless
            # mp4 of it would give
            frame = self._reformat(self._scaler, frame, frame.format.name)
        plane = self._reformat(self._colours, frame, "rgb24").planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        return self.turn.apply(rows[:, : 3 * width].reshape(height, width, 3))

    def yuv(self, frame: VideoFrame) -> VideoFrame:
        """yuv420p, limited range, the matrix of the source (of HDR: BT.709). Sides are even, as
        every SizeRule makes them.
        """
        self.note(frame)
        if hdr.is_hdr(frame):
            frame = self._as_bt709(self._tone_mapped(frame))
            return frame if self.turn == Orientation() else self._turned(frame)
        frame = self._reformat(self._scaler, frame, "yuv420p", ColorRange.MPEG)
        return frame if self.turn == Orientation() else self._turned(frame)

    def note(self, frame: VideoFrame) -> None:
        """Add to `notes` what is to be said about the picture of a frame that was not given."""
        found = []
        if hdr.is_hdr(frame):
            found.append(f"HDR ({hdr.NAMES[int(frame.color_trc)]}), tone-mapped to SDR")
        if (frame.width, frame.height) != self._first:
            old = f"{self._first[0]}x{self._first[1]}"
            new = f"{frame.width}x{frame.height}"
            found.append(f"the picture changes its size in mid-stream: {old}, then {new}")
        self.notes += [note for note in found if note not in self.notes]

    def _tone_mapped(self, frame: VideoFrame) -> np.ndarray:
        """uint8 (H, W, 3) of the coded picture at the wanted size."""
        transfer, primaries = int(frame.color_trc), int(frame.color_primaries or 0)
        deep = self._reformat(self._scaler, frame, "rgb48le", ColorRange.JPEG)
        return hdr.to_sdr(deep.to_ndarray(), transfer, primaries)

    def _as_bt709(self, picture: np.ndarray) -> VideoFrame:
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        frame = self._colours.reformat(
            frame,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
        frame.color_primaries = frame.color_trc = 1
        return frame

    def _reformat(
        self,
        scaler: VideoReformatter,
        frame: VideoFrame,
        pixels: str,
        colours: ColorRange | None = None,
    ) -> VideoFrame:
        width, height = self._coded
        bicubic = Interpolation.BICUBIC
        try:
            return scaler.reformat(
                frame,
                width,
                height,
                pixels,
                interpolation=bicubic,
                dst_color_range=colours,
                threads=1,
            )
        except av.FFmpegError as error:
            raise ItemError(
                "decode_errors", f"pictures in format {frame.format.name} cannot be converted"
            ) from error

    def _turned(self, frame: VideoFrame) -> VideoFrame:
        shown = VideoFrame(self.width, self.height, "yuv420p")
        for source, target in zip(frame.planes, shown.planes, strict=True):
            pixels = np.frombuffer(source, np.uint8).reshape(source.height, source.line_size)[
                :, : source.width
            ]
            rows = np.frombuffer(target, np.uint8).reshape(target.height, target.line_size)
            rows[:, : target.width] = self.turn.apply(pixels)
        shown.colorspace, shown.color_range = frame.colorspace, frame.color_range
        shown.color_primaries, shown.color_trc = frame.color_primaries, frame.color_trc
        return shown
