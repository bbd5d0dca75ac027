"""Join several features of the same frames into longer rows.

    python cli.py concat --in resnext --in resnet --out joined

The values of a row follow the order of the inputs. Rows keep the order of the first input, whose
rows must lie video by video, and all inputs must have the same ids. Source:
xuchaoxi/video-cnn-feat: concat_features.py (docs/specs/preprocessing.md, section 1.7).
"""

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from pydantic import BaseModel

from pipeline.core.stage import Item, Need, Outcome
from pipeline.core.state import digest
from pipeline.errors import ConfigError, DataError
from pipeline.stores.big_file.reader import BigFile
from pipeline.stores.big_file.stage import BigFileStage, Rows, content


class Stage(BigFileStage):
    needs = {
        "features": Need(
            "features", many=True, help="two or more BigFile folders with the same ids"
        )
    }
    flush_items = 64

    def items(self) -> Iterable[Item]:
        self._check()
        key = [content(artefact, self.out) for artefact in self.inputs["features"]]
        for video_id in self._stores[0].videos:
            yield Item(video_id, digest([key, video_id]), source=str(self._stores[0].path))

    def process(self, item: Item) -> Outcome:
        ids = self._stores[0].videos[item.id]
        rows = np.concatenate([store.read(ids) for store in self._stores], axis=1)
        return Outcome(value=Rows(ids, rows), facts={"frames": len(ids), "bytes": rows.nbytes})

    @classmethod
    def mistakes(cls, options: BaseModel, given: dict[str, list[str]] | None) -> list[str]:
        """There are two or more features to join."""
        try:
            _expect_several(2 if given is None else len(given["features"]))
        except ConfigError as error:
            return [str(error)]
        return []

    @property
    def dim(self) -> int:
        return sum(store.dim for store in self._stores)

    @property
    def has_frames(self) -> bool:
        return self._stores[0].has_frames

    @cached_property
    def _stores(self) -> list[BigFile]:
        return [BigFile.open(artefact.path) for artefact in self.inputs["features"]]

    def _check(self) -> None:
        _expect_several(len(self._stores))
        first = self._stores[0]
        order = [frame for frames in first.videos.values() for frame in frames]
        if order != first.ids:
            raise DataError(
                f"its rows do not lie video by video as in video2frames.txt ({len(order):,} of"
                f" {first.rows:,} listed)",
                where=first.path,
                fix="Name another input first.",
            )
        for store in self._stores[1:]:
            _expect_same_ids(first, store)


def _expect_same_ids(first: BigFile, other: BigFile) -> None:
    missing = [i for i in first.ids if i not in other]
    extra = [i for i in other.ids if i not in first]
    if not missing and not extra:
        return
    counts = [
        f"{len(ids):,} ids are {where}: {', '.join(map(repr, ids[:3]))}"
        for ids, where in ((missing, "missing"), (extra, f"not in {first.path}"))
        if ids
    ]
    raise DataError(
        "; ".join(counts),
        where=other.path,
        fix="Join only features that were made from the same frames.",
    )


def _expect_several(count: int) -> None:
    """Raise ConfigError if there are fewer than two features."""
    if count < 2:
        raise ConfigError(
            f"{count} features given, two or more can be joined",
            where="concat",
            fix="Name them: in: [features@a, features@b]",
        )
