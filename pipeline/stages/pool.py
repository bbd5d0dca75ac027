"""Pool the frame features of each video into one vector.

    python cli.py pool --in features --method mean --out pooled

Source: xuchaoxi/video-cnn-feat: videocnn/feature_pooling.py (docs/specs/preprocessing.md, section
1.7).
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import digest
from pipeline.errors import DataError
from pipeline.stores.big_file.reader import BigFile
from pipeline.stores.big_file.stage import BigFileStage, Rows, content


class Options(BaseModel, extra="forbid"):
    method: Literal["mean", "max", "gauss"] = Field(
        "mean",
        description=(
            "how frames are pooled; gauss: mean weighted by exp(-|i - n/2| / 4) for frame i of n"
        ),
    )


class Stage(BigFileStage):
    needs = {
        "features": Need(
            "features", help="a features step, or a BigFile folder with video2frames.txt"
        )
    }
    has_frames = False
    flush_items = 256
    Options = Options

    def items(self) -> Iterable[Item]:
        self._check()
        key = content(self.inputs["features"], self.out)
        for video_id in self._frames.videos:
            yield Item(video_id, digest([key, video_id]), source=str(self._frames.path))

    def process(self, item: Item) -> Outcome:
        frames = self._frames.read_video(item.id)
        vector = _METHODS[self.options.method](frames.astype(np.float64))
        return Outcome(
            value=Rows([item.id], vector[None].astype(np.float32)), facts={"frames": len(frames)}
        )

    @property
    def dim(self) -> int:
        return self._frames.dim

    @cached_property
    def _frames(self) -> BigFile:
        return BigFile.open(self.inputs["features"].path)

    def _check(self) -> None:
        """Without lists of frames there is nothing to pool, and a row that is in no list would be
        lost.
        """
        what = "it has no video2frames.txt: its rows are not frames of videos"
        if self._frames.has_frames:
            lost = self._frames.unlisted
            if not lost:
                return
            what = f"{len(lost):,} rows belong to no video: {', '.join(map(repr, lost[:3]))}"
        raise DataError(
            what,
            where=self._frames.path,
            fix="Give features of frames with their video2frames.txt.",
        )


def _mean(frames: np.ndarray) -> np.ndarray:
    return frames.mean(0)


def _max(frames: np.ndarray) -> np.ndarray:
    return frames.max(0)


def _gauss(frames: np.ndarray) -> np.ndarray:
    n = len(frames)
    weights = np.exp(-np.abs(np.arange(n) - n / 2) / 4)
    return (weights / weights.sum()) @ frames


_METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": _mean,
    "max": _max,
    "gauss": _gauss,
}
