"""The denoiser of `rerank: diffusion`: a checkpoint beside the one that is evaluated, and the split
as it reads it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from models.base import RetrievalModel
from models.parts.noise import keys
from pipeline.checkpoints.model_file import load_model
from pipeline.datasets.base import Annotations
from pipeline.errors import DataError
from pipeline.evaluation import results
from pipeline.evaluation.encode import encode_corpus
from pipeline.evaluation.generation import SecondStage, as_evaluated, features_of
from pipeline.evaluation.inputs import Opened
from pipeline.evaluation.locate import find_results
from pipeline.evaluation.retrieve import Encoded
from pipeline.feeding.corpus import Corpus
from pipeline.processes import World


@dataclass(frozen=True)
class First:
    """The model that is evaluated, by its name in messages, and the split as it reads and encodes
    it.
    """

    name: str
    corpus: Corpus
    encoded: Encoded


def second_stage(
    path: Path,
    opened: Opened,
    first: First,
    annotations: Annotations,
    split: str,
    features: Literal["denoiser", "model"],
    batch_size: int,
    world: World = World(),
) -> SecondStage:
    """What re-ranks `first`: the model of the checkpoint at `path`, opened, and what it sees of the
    split.

    features: made by the denoiser's own extractor, or taken from the encodings of `first`. Raises
    DataError if the checkpoint has no denoiser, reads other videos or does not fit.
    """
    model = opened.model
    _check_samples(opened.model, opened.info.recipe.model, path)
    if features == "model":
        found, seen = (
            features_of(first.encoded.text, first.encoded.video, first.name),
            first.encoded,
        )
    else:
        corpus = opened.corpus(annotations, split)
        _check_same_split(first.corpus, corpus, path)
        seen = encode_corpus(model, corpus, batch_size, world=world)
        found = model.generative_features(seen.text, seen.video)
    return SecondStage(model, found, seen.row_of_text, seen.text_keys, seen.video_keys)


def saved_second_stage(
    path: Path, given: Path | None, scores: tuple[np.ndarray, np.ndarray]
) -> tuple[SecondStage, int]:
    """What re-ranks saved scores, t2v and v2t: a checkpoint and its evaluation of the same split;
    and that one's seed.

    given: a folder of results; None: beside the checkpoint. Rows and columns must be in the order
    of gallery.json.
    """
    model, info = load_model(path)
    model.eval()
    _check_samples(model, info.recipe.model, path)
    folder = find_results(path, given)
    gallery, vectors = results.read_gallery(folder), results.read_vectors(folder)
    expected = len(gallery.caption_ids), len(gallery.video_ids)
    if scores[0].shape != expected:
        raise DataError(
            f"the scores are of {' x '.join(f'{n:,}' for n in scores[0].shape)}, the denoiser was"
            f" evaluated on {expected[0]:,} captions x {expected[1]:,} videos",
            where=folder,
            fix="Evaluate the denoiser on the very split, or give --videos that evaluation.",
        )
    text, video = (
        {k: torch.from_numpy(v) for k, v in vectors[side].items()} for side in ("text", "video")
    )
    found = model.generative_features(text, video)
    second = SecondStage(model, found, gallery.row_of_text, gallery.keys, keys(gallery.video_ids))
    return second, as_evaluated(model, folder)


def equal_rows(scores: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """A number for each caption, int64 (N_t,): equal where both its row of t2v and its column of
    v2t are equal.
    """
    t2v, v2t = scores[0], np.ascontiguousarray(scores[1].T)
    place: dict[bytes, int] = {}
    rows = (one.tobytes() + other.tobytes() for one, other in zip(t2v, v2t, strict=True))
    return np.array([place.setdefault(row, len(place)) for row in rows], dtype=np.int64)


def _check_samples(model: RetrievalModel, name: str, path: Path) -> None:
    if model.sampling is None:
        raise DataError(
            f"a {name} without denoisers",
            where=path,
            fix="Give --denoiser a model that samples: DiffusionRet of stage generation.",
        )


def _check_same_split(ranked: Corpus, seen: Corpus, path: Path) -> None:
    """DataError unless the denoiser reads the very captions and videos that are ranked."""
    if (ranked.caption_ids, ranked.video_ids) == (seen.caption_ids, seen.video_ids):
        return
    differing = sorted(set(ranked.video_ids) ^ set(seen.video_ids))
    raise DataError(
        f"the denoiser reads {len(seen.video_ids):,} videos of the split, the model"
        f" {len(ranked.video_ids):,}; only one of them has {', '.join(differing[:3])}",
        where=path,
        fix="Make the frames and the features of the split from the same videos.",
    )
