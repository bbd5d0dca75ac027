"""Which patches a model that reduces tokens keeps of a video, drawn over its frames; and how well
each part of the video fits a sentence.

As the figure of CenterCLIP shows it (Zhao et al., SIGIR 2022; docs/specs/centerclip.md, sections 4
and 5): what is not a medoid is covered. Our own: every block that reduces, the similarity of each
segment, and frames of models that keep everything.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from models.base import RetrievalModel
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.explain.contact_sheet import cover, sheet

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_COLUMNS = 12


@dataclass(frozen=True)
class KeptPatches:
    """frames uint8 (T, S, S, 3), of which the first `real` are not repeated ones.

    ids: by block from 1, int64 (segments, n), patches that are left: frame in the segment * patches
    of a frame + row * columns + column. similarity (segments,): cosine of each part with the
    sentence; score: of the whole. Both are None without a sentence; similarity also where the model
    does not compare parts by cosine.
    """

    frames: np.ndarray
    real: int
    ids: dict[int, np.ndarray]
    grid: int
    similarity: np.ndarray | None
    score: float | None

    @property
    def segments(self) -> int:
        """Parts of the video that the last block sees."""
        return len(self.ids[max(self.ids)]) if self.ids else len(self.frames)

    def rows(self) -> list[dict]:
        """Return [{"segment", "frames", maybe "similarity", maybe "kept" by block}], counted from
        0.
        """
        length = len(self.frames) // self.segments
        found = []
        for n in range(self.segments):
            row: dict = {"segment": n, "frames": list(range(n * length, (n + 1) * length))}
            if self.similarity is not None:
                row["similarity"] = round(float(self.similarity[n]), 4)
            found.append(row)
        return found

    def mask(self, block: int) -> np.ndarray:
        """Return whether each patch is left in front of a block: bool (T, grid, grid)."""
        ids = self.ids[block]
        shows = np.zeros((len(ids), len(self.frames) // len(ids) * self.grid**2), bool)
        np.put_along_axis(shows, ids, True, axis=1)
        return shows.reshape(len(self.frames), self.grid, self.grid)


@torch.inference_mode()
def read(
    model: RetrievalModel, info: ModelInfo, batch: dict[str, torch.Tensor], text: str | None
) -> KeptPatches:
    """Return what a model with `kept_patches` keeps of one video, and how it fits a sentence.

    batch: frames (1, T, S, S, 3) uint8, video_mask (1, T).
    """
    kept = model.kept_patches(batch["frames"], batch["video_mask"])
    similarity = score = None
    if text is not None:
        shared = model.prepare()
        of_text = model.encode_text(info.text_encoder.encode([text]), shared)
        of_video = model.encode_video(batch, shared)
        score = float(model.score(of_text, of_video)["similarity"][0, 0])
        if "feature" in of_video:
            parts = model.encode_frames(batch["frames"], batch["video_mask"])[0]  # (S, D)
            similarity = (F.normalize(parts, dim=-1) @ of_text["feature"][0]).numpy()
    return KeptPatches(
        frames=batch["frames"][0].numpy(),
        real=int(batch["video_mask"].sum()),
        ids={block: ids.numpy() for block, ids in kept.items()},
        grid=model.clip.sizes.grid,
        similarity=similarity,
        score=score,
    )


def picture(kept: KeptPatches, title: str) -> "Image":
    """Frames as they are, then once for each block that reduces, with a cover over what it drops.

    Below each: its segment, how many of its patches are left, and the similarity of the segment.
    """
    length = len(kept.frames) // kept.segments
    images, labels = [], []
    for t, frame in enumerate(kept.frames):
        images.append(frame)
        fit = "" if kept.similarity is None else f", {kept.similarity[t // length]:.3f}"
        repeated = "" if t < kept.real else " (repeated)"
        labels.append(f"frame {t}{fit}{repeated}")
    for block in sorted(kept.ids):
        shows = kept.mask(block)
        segment = len(kept.frames) // len(kept.ids[block])
        for t, frame in enumerate(kept.frames):
            images.append(cover(frame, shows[t]))
            labels.append(f"block {block}, segment {t // segment}: {shows[t].sum()} left")
    score = "" if kept.score is None else f"   {kept.score:.3f}"
    n_frames = len(kept.frames)  # each block begins a new row
    columns = max(n for n in range(1, _MOST_COLUMNS + 1) if n_frames % n == 0)
    return sheet(np.stack(images), labels, title + score, columns=columns)
