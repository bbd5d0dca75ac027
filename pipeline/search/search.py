"""Search: a question to a collection, an index or what `evaluate` saved; a video to captions.

A query scores itself alone. What a fusion takes from all scores (`RetrievalModel.statistics`) was
kept when they were there, so a typed caption ranks as `evaluate` ranked it.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from models.base import Fusion, RetrievalModel
from models.parts.noise import KeyedNoise, keys
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.evaluation.generation import restore_settings
from pipeline.evaluation.retrieve import Encoded, rankings
from pipeline.recipes.options import FrameOptions
from pipeline.search.answers import Answers, answers_of
from pipeline.search.asking import Asked, Asker, without
from pipeline.search.collection import Collection, Evaluated, Indexed
from pipeline.search.encode_file import encode_one
from pipeline.search.question import Part
from pipeline.search.ranking import Choice, rank
from pipeline.stores.index.reader import IndexStore

_NO_ROWS = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Hit:
    """A caption that answers. rank from 1."""

    rank: int
    score: float
    label: str


@dataclass(frozen=True)
class Searcher:
    """A model that stays loaded, and what it searches.

    paths: only videos whose path or id fits this glob. per_video: answers per video at most, 0: any
    number. exact: the model scores every row.
    """

    asker: Asker
    top: int | None = 10
    per_video: int = 0
    min_score: float | None = None
    paths: str = ""
    exact: bool = False
    _masks: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def collection(self) -> Collection:
        return self.asker.collection

    def search(self, parts: list[Part]) -> tuple[Answers, Asked]:
        """Answers to a question, and what was understood of it. Errors as `Asker.ask`."""
        asked = self.asker.ask(parts)
        mask = self._mask()
        wanted = without(asked, mask, self.collection.rows)
        choice = Choice(self.top, wanted, self.per_video, self.min_score, self.exact)
        ranked = rank(self.collection, asked.query, choice)
        fit = None if mask is None else (self.paths, mask)
        return answers_of(self.collection, ranked, wanted, fit), asked

    def _mask(self) -> np.ndarray | None:
        if not self.paths:
            return None
        if self.paths not in self._masks:
            self._masks[self.paths] = self.collection.matching(self.paths)
        return self._masks[self.paths]


def of_results(
    model: RetrievalModel, info: ModelInfo, folder: Path, features: Path | None = None
) -> Asker:
    """Asks what `evaluate` saved in this folder, sampling as it did. DataError: damaged."""
    seed = restore_settings(model, folder)
    return Asker(model, info, Evaluated(folder, model), features, seed)


def of_index(
    model: RetrievalModel, info: ModelInfo, store: IndexStore, features: Path | None = None
) -> Asker:
    """Asks an index."""
    return Asker(model, info, Indexed(store), features)


@torch.inference_mode()
def captions_of(
    found: Evaluated,
    model: RetrievalModel,
    video_id: str,
    features: Path | None,
    top: int,
    frames: FrameOptions,
) -> list[Hit]:
    """Return the `top` captions for a video: of the gallery, of a folder of features, or a file
    where the model reads frames.

    frames: of the recipe. Raises DataError for a video that is in none of them.
    """
    rows = found.rows_of(video_id)
    if features is None and len(rows):
        video = {n: torch.from_numpy(v) for n, v in found.encodings(np.array([rows[0]])).items()}
    else:
        video = encode_one(model, features, video_id, found.ids(), frames)
    seed, gallery = restore_settings(model, found.folder), found.gallery
    noise = KeyedNoise(seed, gallery.keys, keys([video_id])) if model.second_stage else None
    how = Fusion(
        noise, t2v_rows=_NO_ROWS, v2t_rows=np.zeros(1, np.int64), statistics=found.statistics
    )
    encoded = Encoded(found.texts, video, np.arange(len(gallery.texts)))
    _, v2t = rankings(model, encoded, how=how)
    order = np.argsort(-v2t[0], kind="stable")[:top]
    return [Hit(n, float(v2t[0][i]), gallery.texts[i]) for n, i in enumerate(order, start=1)]
