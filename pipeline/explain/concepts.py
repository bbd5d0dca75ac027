"""What a model with a concept space reads in a sentence and in a video: tags with weights, and
which of them match.

The concept space holds a probability per tag (Dong et al., TPAMI 2021, section 3.3), so its
encodings can be read. The similarity of two of them is sum(min) / sum(max): each tag's share of it
is min / sum(max), and the shares add up to it.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.base import Encoding, RetrievalModel
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.colours import BLUE, INK, MUTED, ORANGE
from pipeline.errors import DataError

_TEXT, _VIDEO = ORANGE, BLUE
_ROW_INCHES = 0.27


@dataclass(frozen=True)
class Reading:
    """Weights of all tags, float32 (K,) in [0, 1], of a sentence, a video or both."""

    tags: list[str]
    text: np.ndarray | None = None
    video: np.ndarray | None = None

    def top(self, side: str, n: int) -> list[dict]:
        """Return the n heaviest tags of "text" or "video": [{"tag", "weight"}]; [] for a side that
        was not asked for.
        """
        weights = getattr(self, side)
        if weights is None:
            return []
        order = np.argsort(-weights, kind="stable")[:n]
        return [{"tag": self.tags[i], "weight": round(float(weights[i]), 4)} for i in order]

    @property
    def shares(self) -> np.ndarray:
        """Each tag's share of the concept similarity, (K,); needs both sides."""
        return np.minimum(self.text, self.video) / max(
            float(np.maximum(self.text, self.video).sum()), 1e-12
        )

    def rank_shared(self, n: int) -> list[dict]:
        """Return the n tags that add most to the similarity: [{"tag", "text", "video", "share"}];
        [] without both sides.
        """
        if self.text is None or self.video is None:
            return []
        shares = self.shares
        return [
            {
                "tag": self.tags[i],
                "text": round(float(self.text[i]), 4),
                "video": round(float(self.video[i]), 4),
                "share": round(float(shares[i]), 5),
            }
            for i in np.argsort(-shares, kind="stable")[:n]
        ]


@torch.inference_mode()
def read_text(model: RetrievalModel, info: ModelInfo, text: str, checkpoint: Path) -> np.ndarray:
    """Weights of all tags in a sentence, float32 (K,). DataError for a model without a concept
    space.
    """
    encoding = model.encode_text(info.text_encoder.encode([text]), model.prepare())
    return _concepts(encoding, info, checkpoint)[0]


def read_video(info: ModelInfo, video: Encoding, checkpoint: Path) -> np.ndarray:
    """Weights of all tags in an encoded video, float32 (K,). DataError without a concept space."""
    return _concepts(video, info, checkpoint)[0]


def _concepts(encoding: Encoding, info: ModelInfo, checkpoint: Path) -> np.ndarray:
    if "concept" not in encoding:
        raise DataError(
            f"{info.recipe.model} of recipe {info.recipe.name} has no concept space, so its"
            " encodings have no names",
            where=checkpoint,
            fix=(
                "Explain a model that has one: dual_encoding, or hybrid_space with `space: hybrid`."
            ),
        )
    return encoding["concept"].float().numpy()


def picture(reading: Reading, titles: Sequence[str], n: int) -> bytes:
    """Return a PNG: the heaviest tags of each side as bars, the video's to the left, the sentence's
    to the right.

    titles: of the video and of the sentence. Tags that add most to the similarity stand on top.
    Equal readings give equal bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _rows(reading, n)
    figure = Figure(figsize=(8.0, 1.5 + _ROW_INCHES * len(rows)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(rows))[::-1]
    sides = (
        (left, "video", _VIDEO, reading.video, titles[0]),
        (right, "text", _TEXT, reading.text, titles[1]),
    )
    for axes, side, colour, weights, title in sides:
        if weights is not None:
            axes.barh(places, weights[rows], color=colour, height=0.72)
            for place, weight in zip(places, weights[rows], strict=True):
                outwards = "right" if side == "video" else "left"
                axes.text(
                    weight + 0.015,
                    place,
                    f"{weight:.2f}",
                    ha=outwards,
                    va="center",
                    fontsize=7,
                    color=MUTED,
                )
        axes.set_title(
            _wrapped(title), fontsize=9, color=colour, loc="right" if side == "video" else "left"
        )
        axes.set_xlim(*((1.12, 0) if side == "video" else (0, 1.12)))
        axes.set_xticks([0, 0.5, 1])
        axes.tick_params(length=0, labelsize=8, colors=MUTED)
        for spine in axes.spines.values():
            spine.set_visible(False)
    left.yaxis.tick_right()
    left.set_yticks(places, [reading.tags[i] for i in rows], color=INK)
    left.tick_params(axis="y", pad=8, labelsize=9, labelcolor=INK)
    right.tick_params(axis="y", labelleft=False)
    if reading.text is not None and reading.video is not None:
        figure.supxlabel(f"concept similarity {reading.shares.sum():.3f}", fontsize=9, color=MUTED)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _rows(reading: Reading, n: int) -> list[int]:
    """Tags to draw: the n heaviest of each side; those that match best first, then the heaviest."""
    sides = [weights for weights in (reading.text, reading.video) if weights is not None]
    chosen = {int(i) for weights in sides for i in np.argsort(-weights, kind="stable")[:n]}
    lowest, highest = np.minimum.reduce(sides), np.maximum.reduce(sides)
    return sorted(chosen, key=lambda i: (-lowest[i], -highest[i], i))


def _wrapped(title: str, width: int = 46, lines: int = 3) -> str:
    import textwrap

    # a dollar sign would begin a formula
    return "\n".join(textwrap.wrap(title, width, max_lines=lines, placeholder=" ...")).replace(
        "$", r"\$"
    )
