"""The demo corpus: captions and scenes made from a seed; the `synthesize` step draws the clips.

Known before any video exists. Clips come in pairs, one the time reversal of the other, next to each
other in every split; combinations of colour, shape and motion in val and test never occur in train,
each single value does.
"""

from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field, model_validator

from pipeline.core.state import digest
from pipeline.datasets import base
from pipeline.datasets.base import Annotations, Caption, Split, Video
from pipeline.datasets.parts.scenes import SPLITS, Chooser, Scene, captions, compose, held_out

RATES = ("10", "12", "15", "24", "25", "30000/1001", "30")
ASPECTS = ((16, 9), (4, 3), (1, 1), (3, 4), (9, 16))
_TRIES = 100  # for a scene that no sentence about an earlier clip of the split describes


class SplitCounts(BaseModel, extra="forbid"):
    train: int = Field(
        192, ge=2, multiple_of=2, description="clips to train on (pairs of time reversals: even)"
    )
    val: int = Field(32, ge=2, multiple_of=2, description="clips to choose the best epoch on")
    test: int = Field(64, ge=2, multiple_of=2, description="clips of the final ranking")


class Options(BaseModel, extra="forbid"):
    root: Path = Field(
        Path("data/demo"), description="folder of the corpus (nothing is read from it)"
    )
    videos: SplitCounts = Field(SplitCounts(), description="clips per split")
    captions_per_video: int = Field(2, ge=1, le=8, description="different sentences per clip")
    seed: int = Field(7, ge=0, description="another seed draws another corpus")
    seconds: tuple[float, float] = Field(
        (1.5, 4.0), description="shortest and longest clip in seconds, at least 1"
    )
    long_side: tuple[int, int] = Field(
        (160, 320), description="range of the longer side in pixels, 64 to 1920"
    )
    two_shapes: float = Field(0.25, ge=0, le=1, description="share of clips with a second shape")
    rotated: float = Field(
        0.25, ge=0, le=1, description="share of clips stored turned, with rotation metadata"
    )

    @model_validator(mode="after")
    def _ranges(self) -> "Options":
        for name, lowest, highest in (("seconds", 1, 60), ("long_side", 64, 1920)):
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise ValueError(
                    f"{name} must be two numbers, {lowest} <= low <= high <= {highest}"
                )
        return self


@dataclass(frozen=True)
class DrawnClip:
    """One video to draw.

    width, height: as displayed, in even pixels. rotation: degrees counter-clockwise by which a
    player turns the stored picture. fps: a fraction as text.
    """

    id: str
    split: str
    scene: Scene
    frames: int
    fps: str
    width: int
    height: int
    rotation: int


class Dataset(base.Dataset):
    Options: ClassVar[type[BaseModel]] = Options

    def clips(self) -> list[DrawnClip]:
        """Return all clips in split order; the second of each two is the first played backwards."""
        combinations = held_out(Chooser(self.options.seed, "held out"))
        return [clip for split in SPLITS for clip in self._split(split, combinations[split])]

    def load(self) -> Annotations:
        clips = self.clips()
        spoken = [caption for clip in clips for caption in self._captions(clip)]
        splits = {
            split: Split(
                [c.id for c in spoken if c.video_id.startswith(_prefix(split))],
                [c.id for c in clips if c.split == split],
            )
            for split in SPLITS
        }
        videos = {clip.id: Video(clip.id, attributes=clip.scene.attributes) for clip in clips}
        return Annotations(videos, {c.id: c for c in spoken}, splits)

    def digest(self) -> str:
        """Digest of every clip and caption, so that a change of this code counts as a change of the
        data.
        """
        return digest(
            [(asdict(clip), [c.text for c in self._captions(clip)]) for clip in self.clips()]
        )

    def _captions(self, clip: DrawnClip) -> list[Caption]:
        texts = captions(
            clip.scene, self.options.captions_per_video, Chooser(self.options.seed, clip.id)
        )
        return [Caption(f"{clip.id}#{n}", clip.id, text) for n, text in enumerate(texts)]

    def _split(self, split: str, combinations: list) -> list[DrawnClip]:
        clips, described = [], set()
        for pair in range(getattr(self.options.videos, split) // 2):
            scene = self._new_scene(split, pair, combinations, described)
            described |= {scene.description, scene.reversed.description}
            clip = self._clip(split, pair, scene)
            clips += [clip, replace(clip, id=_clip_id(split, 2 * pair + 2), scene=scene.reversed)]
        return clips

    def _new_scene(self, split: str, pair: int, combinations: list, described: set) -> Scene:
        # two clips of a split share a description only when a large corpus has used up what can be
        # said
        for attempt in range(_TRIES):
            choose = Chooser(self.options.seed, split, pair, attempt)
            scene = compose(
                choose, combinations, pair, choose.chance(self.options.two_shapes, "two")
            )
            if not {scene.description, scene.reversed.description} & described:
                break
        return scene

    def _clip(self, split: str, pair: int, scene: Scene) -> DrawnClip:
        choose = Chooser(self.options.seed, split, pair, "film")
        fps = Fraction(choose.pick(RATES, "fps"))
        n_frames = _length(choose, self.options.seconds, fps)
        width, height = _size(choose, self.options.long_side)
        turned = choose.chance(self.options.rotated, "turned")
        return DrawnClip(
            id=_clip_id(split, 2 * pair + 1),
            split=split,
            scene=scene,
            frames=n_frames,
            fps=str(fps),
            width=width,
            height=height,
            rotation=choose.pick((90, 180, 270), "rotation") if turned else 0,
        )


def _length(choose: Chooser, seconds: tuple[float, float], fps: Fraction) -> int:
    """Number of frames: first and last are a whole number of thirds of a second apart.

    So a grid of 3 frames per second, counted from the start, sees a clip and its reversal at
    mirrored times. With any other length the average picture of the grid leans towards the start,
    and mean pooling could tell the two apart.
    """
    low = ceil(3 * seconds[0])
    high = max(low, ceil(3 * seconds[1]) - 1)
    return round(fps * (low + choose.below(high - low + 1, "thirds")) / 3) + 1


def _size(choose: Chooser, long_side: tuple[int, int]) -> tuple[int, int]:
    """Displayed (width, height): even, as the encoder's 4:2:0 pictures need it."""
    low, high = long_side
    side = low + choose.below(high - low + 1, "side")
    across, down = choose.pick(ASPECTS, "aspect")
    return tuple(2 * (side * part // (2 * max(across, down))) for part in (across, down))


def _prefix(split: str) -> str:
    return f"demo_{split}_"


def _clip_id(split: str, number: int) -> str:
    return f"{_prefix(split)}{number:04d}"
