"""Any model's scores re-ranked by a second stage, which may belong to another model.

A second stage sees texts and videos through encodings. By default its own model encodes the split;
where the encodings of the evaluated model hold what it reads, they can be taken.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.base import Encoding, Fusion, Mismatch, Ranking, RetrievalModel, SecondStage
from models.parts.noise import KeyedNoise
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation import results
from pipeline.processes import World

SIMILARITY = "similarity"  # the ranking of a model with a second stage by its first one alone


@dataclass(frozen=True)
class Reranker:
    """A second stage and the split as it sees it.

    text, video: what it picked of the encodings; a row of text per distinct text, which row_of_text
    int64 (N_t,) gives for each caption. keys: as of `Encoded`.
    """

    stage: SecondStage
    text: Encoding
    video: Encoding
    row_of_text: np.ndarray
    text_keys: np.ndarray
    video_keys: np.ndarray

    def rerank(
        self,
        scores: tuple[np.ndarray, np.ndarray],
        row_of_text: np.ndarray,
        seed: int,
        world: World = World(),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores t2v (N_t, N_v) and v2t (N_v, N_t) of captions, re-ranked.

        scores: of the same shapes. row_of_text int64 (N_t,): equal where captions were one text to
        the model that made the scores. Captions that are one text to both models are one candidate
        and one query. Raises DataError if the second stage does not fit.
        """
        t2v, v2t = scores
        texts = np.stack([row_of_text, self.row_of_text])
        _, first, place = np.unique(texts, axis=1, return_index=True, return_inverse=True)
        place = place.reshape(-1)
        rows = self.row_of_text[first]
        text = {name: values[torch.from_numpy(rows)] for name, values in self.text.items()}
        noise = KeyedNoise(seed, self.text_keys[rows], self.video_keys)
        how = Fusion(noise, world.rank, world.size)
        distinct = Ranking(torch.from_numpy(t2v[first]), torch.from_numpy(v2t[:, first]))
        try:
            found = self.stage.rerank(distinct, text, self.video, how)
        except Mismatch as error:
            raise DataError(error.what, where="rerank diffusion", fix=error.fix) from error
        return found.t2v.numpy()[place], found.v2t.numpy()[:, place]


def configure(stage: SecondStage, changes: dict[str, int | float | None], where: str) -> None:
    """Change how a second stage re-ranks: steps, and {t2v, v2t}_{candidates, factor, alpha}.

    Raises ConfigError, of the place `where`, if its weights do not allow them.
    """
    try:
        stage.configure(changes)
    except Mismatch as error:
        raise ConfigError(error.what, where=where, fix=error.fix) from error


def pick_encodings(
    stage: SecondStage, text: Encoding, video: Encoding, name: str
) -> tuple[Encoding, Encoding]:
    """Return what encodings (N_t rows, N_v rows) of the evaluated model `name` hold for a stage.

    Raises DataError if that is not enough.
    """
    try:
        return stage.pick(text, video)
    except Mismatch as error:
        raise DataError(
            f"{name}: {error.what}",
            where="evaluate.sampling.features",
            fix="Set features: denoiser, whose own extractor encodes the split.",
        ) from error


def restore_settings(model: RetrievalModel, folder: Path) -> int:
    """Let a model re-rank as it did in the evaluation in this folder; return the seed of its noise.

    Raises ConfigError if the weights do not allow those settings.
    """
    if model.second_stage is None:
        return 0
    found = results.read_metrics(folder).get("sampling")
    if not found:
        return 0
    changes = {"steps": found["steps"]}
    for side in ("t2v", "v2t"):
        changes |= {f"{side}_{name}": value for name, value in found[side].items()}
    configure(model.second_stage, changes, where=str(folder))
    return found["seed"]
