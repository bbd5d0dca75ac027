"""The record of a query as alro923/DRL builds it: the query, the path of its own video, all paths
best first.

Source: docs/specs/drl.md, section 17. Its file of all test sentences is an object of such records
keyed by "0", "1", ...
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.base import Fusion, RetrievalModel
from models.parts.noise import keys
from pipeline.arrays import read_npz
from pipeline.errors import ConfigError
from pipeline.evaluation import results
from pipeline.evaluation.generation import restore_settings
from pipeline.evaluation.retrieve import Encoded, rankings


def record_of(text: str, video: str | None, ranked: Sequence[str]) -> dict[str, object]:
    """video: path of the true video, None for a free sentence. ranked: paths of the whole gallery,
    best first.
    """
    return {"text": text, "video": video, "video_path_list": list(ranked)}


def sentence(folder: Path, index: int) -> tuple[str, str]:
    """Return the caption of that number (from 0) in the evaluated split, and the id of its video.
    ConfigError: no such one.
    """
    gallery = results.read_gallery(folder)
    if index >= len(gallery.caption_ids):
        raise ConfigError(
            f"there is no sentence {index:,}",
            where="--index",
            fix=f"Give 0 to {len(gallery.caption_ids) - 1:,}.",
        )
    return gallery.texts[gallery.row_of_text[index]], gallery.video_ids[_targets(folder)[index]]


@torch.inference_mode()
def all_records(model: RetrievalModel, folder: Path, path: str) -> dict[str, dict[str, object]]:
    """Return a record for each caption of the evaluated split, by its number. path: of a video,
    with {} for its id.
    """
    gallery = results.read_gallery(folder)
    encodings = results.read_encodings(folder)
    encoded = Encoded(
        text=encodings["text"],
        video=encodings["video"],
        row_of_text=gallery.row_of_text,
        text_keys=gallery.keys,
        video_keys=keys(gallery.video_ids),
    )
    how = Fusion(encoded.noise(restore_settings(model, folder)), v2t_rows=np.zeros(0, np.int64))
    t2v, _ = rankings(model, encoded, how=how)
    paths = [path.replace("{}", video_id) for video_id in gallery.video_ids]
    targets = _targets(folder)
    return {
        str(n): record_of(
            gallery.texts[gallery.row_of_text[n]],
            paths[targets[n]],
            [paths[i] for i in np.argsort(-scores, kind="stable")],
        )
        for n, scores in enumerate(t2v)
    }


def _targets(folder: Path) -> np.ndarray:
    """Return the gallery column of each caption's own video, int64 (N_t,)."""
    return read_npz(folder / results.RANKS)["target"]
