"""What to take from a video: which frames, what size, and how much at most. Plain values; nothing
here decodes.

Source: docs/specs/preprocessing.md, sections 1.1, 1.2, 1.7, 3.4, 3.6, 3.7.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pydantic import BaseModel, Field

from pipeline.errors import ItemError

FrameRule = Literal["grid", "published", "published-vfr", "all", "half-second", "indices"]


class Limits(BaseModel, extra="forbid"):
    """How large an input may be. A stage's `Options` may inherit it and be passed where Limits are
    wanted.
    """

    max_pixels: int = Field(8192 * 8192, ge=1, description="pixels of a source frame")
    max_long_side: int = Field(4096, ge=16, description="pixels of the longer side of a result")
    max_duration: float = Field(6 * 3600, gt=0, description="seconds from first to last frame")
    max_repeat_frames: int = Field(
        20_000,
        ge=1,
        description="frames, if most are repeated",
    )


@dataclass(frozen=True)
class FrameChoice:
    """Which source frames make up a clip.

    grid: slot k shows the last frame at or before k/fps. published: what ffmpeg's `-r fps` shows in
    an mp4 (tau 1.1 in docs/specs/preprocessing.md, section 1.2); published-vfr: the same in avi,
    mkv and webm of ffmpeg 5 (tau 0.6). all: every frame. half-second: frame c when c mod f is 0 or
    f // 2, f the integer frame rate (xuchaoxi/video-cnn-feat); every frame below 2 fps. indices:
    frames by number, in increasing order.
    """

    rule: FrameRule = "grid"
    fps: Fraction = Fraction(3)
    indices: tuple[int, ...] = ()

    @classmethod
    def at(cls, fps: float | Fraction, rule: FrameRule = "grid") -> "FrameChoice":
        """`rule` at `fps` frames per second."""
        return cls(rule, Fraction(fps).limit_denominator(100_000))

    @property
    def is_grid(self) -> bool:
        """Whether slots come at `fps`, whatever the frames of the source."""
        return self.rule in ("grid", "published", "published-vfr")

    @classmethod
    def every(cls, seconds: float) -> "FrameChoice":
        """Return one frame every `seconds`, on the grid."""
        return cls("grid", 1 / Fraction(seconds).limit_denominator(100_000))


@dataclass(frozen=True)
class SizeRule:
    """The size of the result, from the displayed size of the source.

    short: the short side becomes `short_side`, the long side is rounded down to even. clip4clip:
    the same, but portrait video is squashed as the published command does. square: `short_side` x
    `short_side`, the aspect is not kept.
    square_pixels: apply the pixel aspect of the source first.
    """

    rule: Literal["short", "clip4clip", "square"] = "short"
    short_side: int = 224
    square_pixels: bool = False

    def target(self, width: int, height: int, max_long_side: int) -> tuple[int, int]:
        """Width and height of the result. ItemError("extreme_aspect") if a side passes
        `max_long_side` or vanishes.
        """
        out_width, out_height = _SIZES[self.rule](width, height, self.short_side)
        if max(out_width, out_height) > max_long_side or min(out_width, out_height) < 2:
            raise ItemError(
                "extreme_aspect",
                f"{width}x{height} would become {out_width}x{out_height}; sides from 2 to"
                f" {max_long_side} are allowed",
            )
        return out_width, out_height


def _short(width: int, height: int, side: int) -> tuple[int, int]:
    long = 2 * (side * max(width, height) // (2 * min(width, height)))
    return (long, side) if width > height else (side, long)


def _clip4clip(width: int, height: int, side: int) -> tuple[int, int]:
    if width > height:
        return _short(width, height, side)
    return side, 2 * (
        side * width // (2 * height)
    )  # multiplies by the aspect where it should divide, as published


def _square(width: int, height: int, side: int) -> tuple[int, int]:
    return side, side


_SIZES = {"short": _short, "clip4clip": _clip4clip, "square": _square}
