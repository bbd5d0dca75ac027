"""One video to a small H.264 file: what the `compress` stage does to each item, and `fetch` to each
download.

Nothing heavy is imported before a video is opened. Source: docs/specs/preprocessing.md, sections 3
and 4.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from pipeline.core.files import atomic_path, written
from pipeline.core.stage import Outcome
from pipeline.errors import ItemError
from pipeline.video.frame_rule import FrameChoice, Limits, SizeRule

if TYPE_CHECKING:
    from pipeline.video.decode import Survey
    from pipeline.video.encode import Encoding
    from pipeline.video.moment import Moment

_PRESETS = Literal[
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
]
_BYTES_PER_SECOND = (
    12_500  # of the leanest videos worth a limit of their own; slower ones are inside the 600 s
)


class Options(Limits, extra="forbid"):
    fps: float = Field(3, gt=0, le=240, description="frames per second of the result")
    short_side: int = Field(
        224, ge=16, le=4096, multiple_of=2, description="pixels of the shorter side"
    )
    engine: Literal["pyav", "ffmpeg"] = Field(
        "pyav",
        description="pyav decodes only what is shown; ffmpeg is the published command",
    )
    frame_rule: Literal["grid", "published", "published-vfr"] = Field(
        "grid",
        description=(
            "grid: the last one before every 1/fps; published: those of `ffmpeg -r` for mp4;"
            " published-vfr: for avi, mkv"
        ),
    )
    size_rule: Literal["short", "clip4clip"] = Field(
        "short",
        description=("short keeps the aspect ratio; clip4clip: published"),
    )
    square_pixels: bool = Field(False, description="apply the source's pixel aspect ratio")
    crf: int = Field(23, ge=0, le=51, description="x264 quality, 0 best")
    preset: _PRESETS = Field(
        "veryfast", description="of x264, ultrafast to placebo (published: medium)"
    )
    gop: int = Field(250, ge=1, description="frames per key frame; 1 for random access")
    verify: Literal["fast", "full"] = Field(
        "fast", description="decode one frame of each result, or all"
    )
    strict: bool = Field(False, description="set damaged videos aside as a whole")

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.engine == "ffmpeg" and self.frame_rule == "published-vfr":
            raise ValueError(
                "engine ffmpeg writes mp4, which takes frames by the rules grid or published"
            )
        return self


def time_limit(bytes_: int, options: Limits) -> float:
    """600 s and twice the duration, which is guessed from the size of the file: nobody opens a
    video to know it.
    """
    return 600 + 2 * min(bytes_ / _BYTES_PER_SECOND, options.max_duration)


def compress(
    source: Path, folder: Path, name: str, options: Options, moment: "Moment | None" = None
) -> Outcome:
    """Write the small version of `source` as `folder / name` (mp4), verified and whole, or nothing
    at all.

    moment: only this part; what comes later is neither read nor judged (engine ffmpeg cannot cut:
    longer videos are too_long for it).
    The outcome's one output is `name`; facts: frames, fps, seconds, width, height, decoded. A
    source that changes while it is read is read once more. Raises ItemError as `video.decode_clip`,
    and "io_error"; OSError when writing fails.
    """
    for _ in range(2):
        try:
            return _attempt(source, folder, name, options, moment)
        except _ChangedError:
            continue
    raise ItemError("io_error", "the file changed while it was read, twice")


class _ChangedError(Exception):
    """The source is not the file it was when reading began."""


@dataclass(frozen=True)
class _Result:
    """What an engine wrote. frames: in the result; decoded: source frames that decode."""

    width: int
    height: int
    frames: int
    decoded: int
    status: Literal["ok", "damaged"]
    reason: str
    message: str


def _attempt(
    source: Path, folder: Path, name: str, options: Options, moment: "Moment | None"
) -> Outcome:
    before = mark(source)
    seconds = time_limit(before[0], options)
    try:
        with atomic_path(folder / name, ".mp4") as temporary:
            result = _ENGINES[options.engine](source, options, temporary, seconds, moment)
            if result.status == "damaged" and options.strict:
                raise ItemError(result.reason, result.message)
            _check(result, temporary, options)
            if mark(source) != before:
                raise _ChangedError
    except ItemError as error:
        if mark(source) != before:
            raise _ChangedError from error
        raise
    fps = float(_choice(options).fps)
    facts = {
        "frames": result.frames,
        "fps": fps,
        "seconds": round(result.frames / fps, 3),
        "width": result.width,
        "height": result.height,
        "decoded": result.decoded,
    }
    return Outcome(
        status=result.status,
        value=None,
        outputs={name: written(folder / name)},
        facts=facts,
        reason=result.reason,
        message=result.message,
    )


def mark(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is replaced or written to: (bytes, mtime in ns, inode).
    ItemError if it is not there.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise ItemError("io_error", f"cannot be read: {error.strerror}") from error
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def _choice(options: Options) -> FrameChoice:
    return FrameChoice.at(options.fps, options.frame_rule)


def _size(options: Options) -> SizeRule:
    return SizeRule(options.size_rule, options.short_side, options.square_pixels)


def _encoding(options: Options) -> "Encoding":
    from pipeline.video.encode import Encoding

    return Encoding(options.crf, options.preset, options.gop)


def _check(result: _Result, path: Path, options: Options) -> None:
    from pipeline.video.encode import verify

    verify(path, result.width, result.height, result.frames, every_frame=options.verify == "full")


def _with_pyav(
    source: Path, options: Options, target: Path, seconds: float, moment: "Moment | None"
) -> _Result:
    """Choose, scale, encode, in one pass."""
    from pipeline.video.encode import Mp4Writer
    from pipeline.video.reader import iterate_clip

    reader = iterate_clip(source, _choice(options), _size(options), options, moment)
    shaper, picture, shown = None, None, None
    with Mp4Writer(target, _encoding(options), _choice(options).fps) as writer:
        for chosen in reader.chosen():
            shaper = shaper or reader.shaper(chosen.frame)
            if chosen.index != shown:
                picture, shown = shaper.yuv(chosen.frame), chosen.index
            writer.write(picture, chosen.repeats)
    return _Result(
        width=reader.width,
        height=reader.height,
        frames=writer.frames,
        decoded=reader.decoded,
        status=reader.status,
        reason=reader.reason,
        message=reader.message,
    )


def _with_ffmpeg(
    source: Path, options: Options, target: Path, seconds: float, moment: "Moment | None"
) -> _Result:
    """Return the published command, with a plan made beforehand and the result held against it."""
    from pipeline.video import ffmpeg, hdr
    from pipeline.video.decode import examine, survey
    from pipeline.video.encode import count_frames
    from pipeline.video.reader import iterate_clip

    choice = _choice(options)
    plan = survey(source, choice, options)
    if moment and not _is_whole(moment, plan, choice):
        raise ItemError(
            "too_long",
            f"only {moment} of it is wanted, but engine ffmpeg keeps whole videos; use pyav",
        )
    reader = iterate_clip(source, choice, _size(options), options)
    first = next(reader.chosen()).frame
    shaper = reader.shaper(first)
    job = ffmpeg.Job(
        source=source,
        stream=plan.stream,
        width=shaper.width,
        height=shaper.height,
        choice=choice,
        encoding=_encoding(options),
    )
    complaints = ffmpeg.run(job, target, 0.95 * seconds)  # before the runner ends the whole worker
    if (
        complaints or plan.is_suspect
    ):  # ffmpeg ends well on damaged files, so everything is decoded to know what is lost
        plan = examine(source, choice, options)
    frames = count_frames(target)
    if plan.status == "ok" and abs(frames - plan.slots) > plan.tolerance:
        raise ItemError(
            "io_error", f"ffmpeg wrote {frames:,} frames, but {plan.slots:,} were expected"
        )
    is_hdr = "HDR, left as it is: engine ffmpeg does not tone-map" if hdr.is_hdr(first) else ""
    message = "; ".join(filter(None, [plan.message, is_hdr]))
    return _Result(
        width=shaper.width,
        height=shaper.height,
        frames=frames,
        decoded=plan.decoded,
        status=plan.status,
        reason=plan.reason,
        message=message,
    )


def _is_whole(moment: "Moment", plan: "Survey", choice: FrameChoice) -> bool:
    """Return whether a moment begins with the film and ends no earlier than it."""
    if moment.start or moment.end is None:
        return not moment.start
    return plan.slots <= math.ceil(moment.end * choice.fps) + plan.tolerance


_ENGINES = {"pyav": _with_pyav, "ffmpeg": _with_ffmpeg}
