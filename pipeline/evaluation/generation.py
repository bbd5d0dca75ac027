"""Ranking by sampling: how a generative model is set up, and any model's scores re-ranked by
another one's denoisers.

A denoiser needs a sentence vector of each text and a vector of each frame, of its own width. By
default its own feature extractor makes them of the same split; where the evaluated model's
encodings hold such vectors, they can be taken.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from models.base import Encoding, Fusion, Mismatch, Ranking, RetrievalModel
from models.diffusion_ret.noising import schedule
from models.diffusion_ret.reranking import Features
from models.parts.noise import Noise
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation import results
from pipeline.processes import World

SIMILARITY = "similarity"  # the ranking of a generative model by its similarities alone
_SENTENCES, _FRAMES = ("sentence", "vector"), ("features", "frames")  # what encodings call them


@dataclass(frozen=True)
class SecondStage:
    """A generative model and the split as it sees it, a row of features.text per distinct text;
    keys: as Encoded.
    """

    model: RetrievalModel
    features: Features
    row_of_text: np.ndarray
    text_keys: np.ndarray
    video_keys: np.ndarray

    def reranked(
        self,
        scores: tuple[np.ndarray, np.ndarray],
        row_of_text: np.ndarray,
        seed: int,
        world: World = World(),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores t2v (N_t, N_v) and v2t (N_v, N_t) of captions, re-ranked. row_of_text: where they
        were equal texts.

        Captions that are one text to both models are one candidate and one query.
        """
        texts = np.stack([row_of_text, self.row_of_text])
        _, first, place = np.unique(texts, axis=1, return_index=True, return_inverse=True)
        rows = self.row_of_text[first]
        features = self.features._replace(text=self.features.text[torch.from_numpy(rows)])
        noise = Noise(seed, self.text_keys[rows], self.video_keys)
        plain = Ranking(torch.from_numpy(scores[0][first]), torch.from_numpy(scores[1][:, first]))
        try:
            found = self.model.generate(plain, features, Fusion(noise, world.rank, world.size))
        except Mismatch as error:
            raise DataError(error.what, where="rerank diffusion", fix=error.fix) from error
        place = place.reshape(-1)
        return found.t2v.numpy()[place], found.v2t.numpy()[:, place]


def configure(model: RetrievalModel, changes: dict[str, int | float], where: str) -> None:
    """Change how a generative model samples. changes: steps, and {t2v, v2t}_{candidates, factor,
    alpha}.

    Raises ConfigError if its schedule has fewer steps.
    """
    sampling = model.sampling
    sides = {
        side: replace(
            way,
            **{
                field: changes[f"{side}_{field}"]
                for field in vars(way)
                if f"{side}_{field}" in changes
            },
        )
        for side, way in (("t2v", sampling.t2v), ("v2t", sampling.v2t))
    }
    model.sampling = replace(sampling, steps=changes.get("steps", sampling.steps), **sides)
    try:
        schedule(sampling.schedule, sampling.diffusion_steps, model.sampling.steps)
    except Mismatch as error:
        raise ConfigError(error.what, where=where, fix=error.fix) from error


def features_of(text: Encoding, video: Encoding, name: str) -> Features:
    """What the encodings of the evaluated model `name` hold for a denoiser. DataError if that is
    not enough.

    A text needs "sentence" or "vector" (D,), a video "features" or "frames" (T, D) and "real" (T,).
    """
    sentence = next((text[key] for key in _SENTENCES if key in text), None)
    frames = next((video[key] for key in _FRAMES if key in video), None)
    if sentence is None or frames is None or "real" not in video:
        raise DataError(
            f"{name} encodes a text as {', '.join(text)} and a video as {', '.join(video)}: no"
            " sentence and frames",
            where="evaluate.sampling.features",
            fix="Set features: denoiser, whose own extractor encodes the split.",
        )
    return Features(sentence, frames, video["real"])


def as_evaluated(model: RetrievalModel, folder: Path) -> int:
    """Let a model sample as it did in the evaluation in this folder; returns the seed of the
    noise.
    """
    found = results.read_metrics(folder).get("sampling") if model.sampling else None
    if not found:
        return 0
    sides = {
        f"{side}_{name}": value for side in ("t2v", "v2t") for name, value in found[side].items()
    }
    configure(model, sides | {"steps": found["steps"]}, where=str(folder))
    return found["seed"]
