"""Search: one typed query against the encodings that `evaluate` saved, or one video against the
captions.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.base import Encoding, Fusion, RetrievalModel
from models.parts.noise import KeyedNoise, keys
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.errors import DataError
from pipeline.evaluation import results
from pipeline.evaluation.encode import text_keys
from pipeline.evaluation.generation import restore_settings
from pipeline.evaluation.retrieve import Encoded, rankings
from pipeline.recipes.options import FrameOptions
from pipeline.search.encode_file import encode_file
from pipeline.stores.big_file.reader import BigFile

# text-video pairs scored besides the query, so that fusion sees what it saw in evaluate
_CONTEXT_PAIRS = 2_000_000


@dataclass(frozen=True)
class Hit:
    """One answer. rank from 1; label: a video id, or a caption."""

    rank: int
    score: float
    label: str


@torch.inference_mode()
def search_text(
    model: RetrievalModel, info: ModelInfo, folder: Path, query: str, top: int | None
) -> list[Hit]:
    """The `top` videos (None: all) for a query, with the scores that evaluate would have given
    it.
    """
    gallery, encodings = results.read_gallery(folder), _encodings(folder)
    sentences = info.text_encoder.sentences([query])
    encoding = model.encode_text(sentences.batch(np.zeros(1, np.int64)), model.prepare())
    text = {
        name: torch.cat([_some(rows, encodings["video"]), encoding[name]])
        for name, rows in encodings["text"].items()
    }
    n = len(next(iter(text.values())))
    known = np.zeros(n, np.uint64)  # of the other texts nothing is read
    known[-1:] = text_keys(sentences, np.zeros(1, np.int64))
    noise = KeyedNoise(restore_settings(model, folder), known, keys(gallery.video_ids))
    how = Fusion(noise, t2v_rows=np.array([n - 1]), v2t_rows=np.zeros(0, np.int64))
    t2v, _ = rankings(model, Encoded(text, encodings["video"], np.arange(n)), how=how)
    return _hits(t2v[-1], gallery.video_ids, top)


@torch.inference_mode()
def search_video(
    model: RetrievalModel,
    folder: Path,
    video_id: str,
    features: Path | None,
    top: int,
    frames: FrameOptions = FrameOptions(),
) -> list[Hit]:
    """The `top` captions for a video: of the gallery, of a folder of features, or a file where the
    model reads frames.

    frames: of the recipe. Raises DataError for a video that is in none of them.
    """
    gallery, encodings = results.read_gallery(folder), _encodings(folder)
    video = encodings["video"]
    if features is None and video_id in gallery.video_ids:
        row = gallery.video_ids.index(video_id)
    elif features is None and (model.inputs.video != "frames" or not Path(video_id).is_file()):
        raise unknown_video(video_id, gallery.video_ids)
    else:
        new = (
            encode_video(model, features, video_id)
            if features
            else encode_file(model, Path(video_id), frames)
        )
        video, row = (
            {name: torch.cat([rows, new[name]]) for name, rows in video.items()},
            len(gallery.video_ids),
        )
    noise = KeyedNoise(
        restore_settings(model, folder), gallery.keys, keys([*gallery.video_ids, video_id])
    )
    how = Fusion(noise, t2v_rows=np.zeros(0, np.int64), v2t_rows=np.array([row]))
    _, v2t = rankings(
        model, Encoded(encodings["text"], video, np.arange(len(gallery.texts))), how=how
    )
    return _hits(v2t[row], gallery.texts, top)


def _encodings(folder: Path) -> dict[str, Encoding]:
    sides = results.read_vectors(folder)
    return {
        side: {name: torch.from_numpy(rows) for name, rows in vectors.items()}
        for side, vectors in sides.items()
    }


def _some(rows: torch.Tensor, video: Encoding) -> torch.Tensor:
    """Rows for context: all of a small split, evenly spaced ones of a large split."""
    wanted = max(1, _CONTEXT_PAIRS // len(next(iter(video.values()))))
    return rows[torch.linspace(0, len(rows) - 1, min(wanted, len(rows))).round().long()]


def encode_video(model: RetrievalModel, features: Path, video_id: str) -> Encoding:
    """One video of a BigFile, encoded. DataError, with ids that are near, if it is not there."""
    store = BigFile.open(features)
    if video_id not in store.videos:
        raise unknown_video(video_id, list(store.videos))
    rows = torch.from_numpy(np.array(store.read_video(video_id)))[None]
    batch = {"features": rows, "video_mask": torch.ones(rows.shape[:2], dtype=torch.bool)}
    return model.encode_video(batch, model.prepare())


def unknown_video(video_id: str, known: list[str]) -> DataError:
    """What to say of a video that is none of the known ones."""
    if Path(video_id).is_file():
        fix = (
            "Extract its features first (python cli.py features --in FOLDER --out F), then: --video"
            " ID --features F."
        )
    else:
        near = difflib.get_close_matches(video_id, known, n=3)
        fix = (
            f"Did you mean {', '.join(near)}?"
            if near
            else f"There are {', '.join(known[:5])}{' ...' if len(known) > 5 else ''}"
        )
    return DataError(
        f"no video {video_id!r} among the {len(known):,} known ones", where="--video", fix=fix
    )


def _hits(scores: np.ndarray, labels: list[str], top: int | None) -> list[Hit]:
    order = np.argsort(-scores, kind="stable")[:top]
    return [Hit(n, float(scores[i]), labels[i]) for n, i in enumerate(order, start=1)]
