"""Compress videos to small H.264 files: few frames per second, a small short side, no sound.

Damaged files give what decodes of them; what cannot be used is set aside with its reason. The original is never copied
in place of a result. Source: specs/preprocessing.md sections 3 and 4.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from pipeline.core import stage
from pipeline.core.files import atomic_path, disk_name, written
from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import STATE, Record
from pipeline.datasets.sources import Source, video_sources
from pipeline.errors import ItemError
from pipeline.stores.choice import FrameChoice, Limits, SizeRule

if TYPE_CHECKING:
    from pipeline.stores.encode import Encoding

_PRESETS = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
]
_BYTES_PER_SECOND = 12_500  # of the leanest videos worth a limit of their own; slower ones are inside the 600 s


class Stage(stage.Stage):
    needs = {"videos": Need("video_files", help="folder of videos, or videos of a dataset")}
    makes = "video_files"
    runs = "workers"
    store = "files"
    indifferent = frozenset({"verify"})

    class Options(Limits, extra="forbid"):
        fps: float = Field(3, gt=0, le=240, description="frames per second of the result")
        short_side: int = Field(224, ge=16, le=4096, multiple_of=2, description="pixels of the shorter side")
        engine: Literal["pyav", "ffmpeg"] = Field(
            "pyav", description="pyav: in process, only what is shown is decoded; ffmpeg: the published command"
        )
        frame_rule: Literal["grid", "published", "published-vfr"] = Field(
            "grid",
            description="which frames: the last one at every 1/fps, or what `ffmpeg -r` takes (mp4; avi and mkv)",
        )
        size_rule: Literal["short", "clip4clip"] = Field(
            "short", description="clip4clip squashes portrait video as the published command does"
        )
        square_pixels: bool = Field(False, description="apply the pixel aspect of the source (published: ignored)")
        crf: int = Field(23, ge=0, le=51, description="x264 quality, 0 best")
        preset: _PRESETS = Field("veryfast", description="x264 preset (published: medium)")
        gop: int = Field(250, ge=1, description="frames between key frames; 1 for random reads")
        verify: Literal["fast", "full"] = Field("fast", description="decode the first frame of a result, or all")
        strict: bool = Field(False, description="set damaged videos aside instead of keeping what decodes")

        @model_validator(mode="after")
        def _is_possible(self) -> Self:
            if self.engine == "ffmpeg" and self.frame_rule == "published-vfr":
                raise ValueError("engine ffmpeg writes mp4, which takes frames by the rules grid or published")
            return self

    _ignored = 0

    def items(self) -> Iterable[Item]:
        listing = video_sources(self.inputs["videos"], cache=self.out / STATE / "digests.jsonl")
        self._ignored = listing.ignored
        return [Item(s.id, s.key, payload=s, source=str(s.path)) for s in listing.sources]

    def timeout(self, item: Item) -> float:
        """600 s and twice the duration, which is guessed from the size: the parent never opens a video."""
        source: Source = item.payload
        size = 0 if source.problem else source.path.stat().st_size
        return 600 + 2 * min(size / _BYTES_PER_SECOND, self.options.max_duration)

    def process(self, item: Item) -> Outcome:
        source: Source = item.payload
        if source.problem:
            raise ItemError("io_error", f"cannot be read: {source.problem}")
        for _ in range(2):
            try:
                return self._attempt(item, source.path)
            except _ChangedError:
                continue
        raise ItemError("io_error", "the file changed while it was read, twice")

    def _attempt(self, item: Item, path: Path) -> Outcome:
        name = disk_name(item.id, ".mp4")
        before = _mark(path)
        try:
            with atomic_path(self.out / name, ".mp4") as temporary:
                result = _ENGINES[self.options.engine](path, self.options, temporary, self.timeout(item))
                if result.status == "damaged" and self.options.strict:
                    raise ItemError(result.reason, result.message)
                _check(result, temporary, self.options)
                if _mark(path) != before:
                    raise _ChangedError
        except ItemError as error:
            if _mark(path) != before:
                raise _ChangedError from error
            raise
        fps = float(_choice(self.options).fps)
        facts = {
            "frames": result.frames,
            "fps": fps,
            "seconds": round(result.frames / fps, 3),
            "width": result.width,
            "height": result.height,
            "decoded": result.decoded,
        }
        outputs = {name: written(self.out / name)}
        return Outcome(result.status, None, outputs, facts, result.reason, result.message)

    def finish(self, records: list[Record]) -> dict:
        return {
            "videos": len(records),
            "damaged": sum(record.status == "damaged" for record in records),
            "ignored_files": self._ignored,
            "frames": sum(record.facts["frames"] for record in records),
            "seconds": round(sum(record.facts["seconds"] for record in records), 3),
        }


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


def _mark(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written to."""
    try:
        facts = path.stat()
    except OSError as error:
        raise ItemError("io_error", f"cannot be read: {error.strerror}") from error
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def _choice(options: Stage.Options) -> FrameChoice:
    return FrameChoice.at(options.fps, options.frame_rule)


def _size(options: Stage.Options) -> SizeRule:
    return SizeRule(options.size_rule, options.short_side, options.square_pixels)


def _encoding(options: Stage.Options) -> "Encoding":
    from pipeline.stores.encode import Encoding

    return Encoding(options.crf, options.preset, options.gop)


def _check(result: _Result, path: Path, options: Stage.Options) -> None:
    from pipeline.stores.encode import verify

    verify(path, result.width, result.height, result.frames, every_frame=options.verify == "full")


def _with_pyav(source: Path, options: Stage.Options, target: Path, seconds: float) -> _Result:
    """Choose, scale, encode, in one pass."""
    from pipeline.stores.encode import Mp4Writer
    from pipeline.stores.video import iterate_clip

    reader = iterate_clip(source, _choice(options), _size(options), options)
    shaper, picture, shown = None, None, None
    with Mp4Writer(target, _encoding(options), _choice(options).fps) as writer:
        for chosen in reader.chosen():
            shaper = shaper or reader.shaper(chosen.frame)
            if chosen.index != shown:
                picture, shown = shaper.yuv(chosen.frame), chosen.index
            writer.write(picture, chosen.repeats)
    return _Result(
        reader.width, reader.height, writer.frames, reader.decoded, reader.status, reader.reason, reader.message
    )


def _with_ffmpeg(source: Path, options: Stage.Options, target: Path, seconds: float) -> _Result:
    """The published command, with a plan made beforehand and the result held against it."""
    from pipeline.stores import ffmpeg
    from pipeline.stores.decode import examine, survey
    from pipeline.stores.encode import count_frames
    from pipeline.stores.video import iterate_clip

    choice = _choice(options)
    plan = survey(source, choice, options)
    reader = iterate_clip(source, choice, _size(options), options)
    shaper = reader.shaper(next(reader.chosen()).frame)
    job = ffmpeg.Job(source, plan.stream, shaper.width, shaper.height, choice, _encoding(options))
    complaints = ffmpeg.run(job, target, 0.95 * seconds)  # before the runner ends the whole worker
    if (
        complaints or plan.is_suspect
    ):  # ffmpeg ends well on damaged files, so everything is decoded to know what is lost
        plan = examine(source, choice, options)
    frames = count_frames(target)
    if plan.status == "ok" and abs(frames - plan.slots) > plan.tolerance:
        raise ItemError("io_error", f"ffmpeg wrote {frames:,} frames where {plan.slots:,} were to be expected")
    return _Result(shaper.width, shaper.height, frames, plan.decoded, plan.status, plan.reason, plan.message)


_ENGINES = {"pyav": _with_pyav, "ffmpeg": _with_ffmpeg}
