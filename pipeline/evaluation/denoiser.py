"""The denoiser of `rerank: diffusion`: another checkpoint, and the split as its model reads it."""

from pathlib import Path
from typing import Literal

import numpy as np

from models.base import RetrievalModel, SecondStage
from models.parts.noise import keys
from pipeline.checkpoints.model_file import load_model
from pipeline.errors import DataError
from pipeline.evaluation import results
from pipeline.evaluation.encode import encode_corpus
from pipeline.evaluation.generation import Reranker, pick_encodings, restore_settings
from pipeline.evaluation.inputs import EvaluatedSplit, Opened
from pipeline.evaluation.locate import find_results
from pipeline.feeding.corpus import Corpus
from pipeline.processes import World


def open_reranker(
    path: Path,
    opened: Opened,
    first: EvaluatedSplit,
    split: str,
    features: Literal["denoiser", "model"],
    batch_size: int,
    world: World = World(),
) -> Reranker:
    """Return what re-ranks `first`: the model of the checkpoint at `path`, opened, and the split.

    features: made by the denoiser's own extractor, or taken from the encodings of `first`. Raises
    DataError if the checkpoint has no denoiser, reads other videos or does not fit.
    """
    model = opened.model
    stage = _second_stage_of(model, opened.info.recipe.model, path)
    if features == "model":
        seen = first.encoded
        text, video = pick_encodings(stage, seen.text, seen.video, first.name)
    else:
        corpus = opened.corpus(first.annotations, split)
        _check_same_split(first.corpus, corpus, path)
        seen = encode_corpus(model, corpus, batch_size, world=world)
        text, video = stage.pick(seen.text, seen.video)
    return Reranker(
        stage,
        text,
        video,
        row_of_text=seen.row_of_text,
        text_keys=seen.text_keys,
        video_keys=seen.video_keys,
    )


def open_saved_reranker(
    path: Path, given: Path | None, scores: tuple[np.ndarray, np.ndarray]
) -> tuple[Reranker, int]:
    """Return what re-ranks saved scores, and the seed of the evaluation it was taken from.

    path: a checkpoint. given: a folder of results of the same split; None: beside the checkpoint.
    scores: t2v (N_t, N_v) and v2t (N_v, N_t), rows and columns in the order of gallery.json. Raises
    DataError if the checkpoint has no denoiser, or was evaluated on another split.
    """
    model, info = load_model(path)
    model.eval()
    stage = _second_stage_of(model, info.recipe.model, path)
    folder = find_results(path, given)
    gallery = results.read_gallery(folder)
    encodings = results.read_encodings(folder)
    expected = len(gallery.caption_ids), len(gallery.video_ids)
    if scores[0].shape != expected:
        raise DataError(
            f"the scores are of {' x '.join(f'{n:,}' for n in scores[0].shape)}, the denoiser was"
            f" evaluated on {expected[0]:,} captions x {expected[1]:,} videos",
            where=folder,
            fix="Evaluate the denoiser on the very split, or give --videos that evaluation.",
        )
    text, video = stage.pick(encodings["text"], encodings["video"])
    reranker = Reranker(
        stage,
        text,
        video,
        row_of_text=gallery.row_of_text,
        text_keys=gallery.keys,
        video_keys=keys(gallery.video_ids),
    )
    return reranker, restore_settings(model, folder)


def equal_rows(scores: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return a number for each caption, int64 (N_t,), equal where captions have equal scores.

    Equal are both the row of t2v (N_t, N_v) and the column of v2t (N_v, N_t).
    """
    t2v, v2t = scores[0], np.ascontiguousarray(scores[1].T)
    place: dict[bytes, int] = {}
    rows = (one.tobytes() + other.tobytes() for one, other in zip(t2v, v2t, strict=True))
    return np.array([place.setdefault(row, len(place)) for row in rows], dtype=np.int64)


def _second_stage_of(model: RetrievalModel, name: str, path: Path) -> SecondStage:
    if model.second_stage is None:
        raise DataError(
            f"a {name} without denoisers",
            where=path,
            fix="Give --denoiser a model that samples: DiffusionRet of stage generation.",
        )
    return model.second_stage


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
