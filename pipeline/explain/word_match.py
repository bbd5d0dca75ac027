"""What a token-wise model sees in a sentence and a video: which word goes with which frame, and
what each counts for.

As the published demo draws it (foolwood/DRL: demo/show_wti.py; docs/specs/drl.md, section 18), but
with the numbers that the model
scores with: padded words and frames are left out of the picture, as they are of the weights.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.base import Encoding, RetrievalModel
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.colours import INK, MUTED, SCALE
from pipeline.core.artefact import Artefact
from pipeline.core.state import read_manifest
from pipeline.errors import ConfigError
from pipeline.evaluation import results
from pipeline.feeding.inputs import Given, open_videos
from pipeline.search.answers import unknown_video
from pipeline.text.clip_bpe import ClipBpe, clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDEST = 4.0  # points of the line of the most similar pair
_TALLER = 2.4  # a unit upwards, in units to the right
_FRAME = (0.92, 0.54)  # most units that a frame takes
_KINDS = {"tensors": "tensors", "frame_store": "store", "video_files": "videos"}


@dataclass(frozen=True)
class WordMatch:
    """A sentence of L words and a video of T frames. All float32: similarity (L, T), the others
    (L,) or (T,).

    best_frame, best_word: the similarities that count. weights sum to 1. frames: uint8 (T, S, S,
    3), or None.
    """

    words: list[str]
    similarity: np.ndarray
    best_frame: np.ndarray
    best_word: np.ndarray
    word_weight: np.ndarray
    frame_weight: np.ndarray
    frames: np.ndarray | None = None

    @property
    def sides(self) -> tuple[float, float]:
        """Text to video and video to text; the score is half of their sum."""
        return float(self.word_weight @ self.best_frame), float(self.frame_weight @ self.best_word)

    @property
    def title(self) -> str:
        t2v, v2t = self.sides
        return f"({t2v:.3f} + {v2t:.3f})/2 = {(t2v + v2t) / 2:.3f}"

    def rows(self) -> dict[str, list[dict]]:
        """Return {"words": [{word, weight, similarity, frame}], "frames": [{frame, weight,
        similarity, word}]}, from 0.

        frame and word are None where padding counts for more than every real one.
        """
        frame_of, word_of = self.similarity.argmax(1), self.similarity.argmax(0)
        padded_frame = self.best_frame > self.similarity.max(1)
        padded_word = self.best_word > self.similarity.max(0)
        words = [
            {
                "word": word,
                "weight": round(float(self.word_weight[i]), 4),
                "similarity": round(float(self.best_frame[i]), 4),
                "frame": None if padded_frame[i] else int(frame_of[i]),
            }
            for i, word in enumerate(self.words)
        ]
        frames = [
            {
                "frame": j,
                "weight": round(float(self.frame_weight[j]), 4),
                "similarity": round(float(self.best_word[j]), 4),
                "word": None if padded_word[j] else self.words[word_of[j]],
            }
            for j in range(len(self.frame_weight))
        ]
        return {"words": words, "frames": frames}


@torch.inference_mode()
def read(
    model: RetrievalModel,
    info: ModelInfo,
    text: str,
    video: Encoding,
    frames: np.ndarray | None = None,
) -> WordMatch:
    """Return a sentence and an encoded video, by a model with `explain`.

    video: the encoding of one. frames: what it saw, uint8 (T, S, S, 3), to show them. Raises
    models.base.Mismatch for a model that compares no words.
    """
    batch = info.text_encoder.encode([text])
    match = model.explain(model.encode_text(batch, model.prepare()), video)
    values = {name: value.float().numpy() for name, value in vars(match).items()}
    words = labels(text, len(values["word_weight"]))
    return WordMatch(words, **values, frames=frames)


def evaluated(folder: Path, video_id: str) -> Encoding:
    """Return the encoding of a video that `evaluate` wrote into `folder`. DataError if it is not
    there.
    """
    known = results.read_gallery(folder).video_ids
    if video_id not in known:
        raise unknown_video(video_id, known)
    row = known.index(video_id)
    vectors = results.read_vectors(folder)["video"]
    return {name: torch.from_numpy(rows[row : row + 1]) for name, rows in vectors.items()}


def labels(text: str, n: int) -> list[str]:
    """Return what each of n tokens stands for; a word that is cut up is written before its first
    piece, the others are "+".
    """
    bpe = ClipBpe.load()
    inner = []
    for word in clean(text).split(" "):
        inner += [word, *["+"] * (len(bpe.encode(word)) - 1)]
    return ["[CLS]", *inner[: n - 2], "[SEP]"]


def read_frames(
    model: RetrievalModel, info: ModelInfo, path: Path, video_id: str
) -> dict[str, torch.Tensor]:
    """Return a batch of one video as the model is tested on it: frames (1, T, S, S, 3) uint8,
    video_mask (1, T).

    path: a finished step that holds frames. ConfigError if it does not, or not this video.
    """
    kind = (read_manifest(path) or {}).get("makes")
    if kind not in _KINDS:
        raise ConfigError(
            f"holds {kind or 'no finished step'}, not frames",
            where=path,
            fix="Give a tensors, frames or compress step.",
        )
    train = info.recipe.train
    given = Given(**{_KINDS[kind]: Artefact(kind, path)})
    store = open_videos(model.inputs, given, train.frames, seed=train.seed, threads=1)
    if fault := store.faults([video_id]):
        raise ConfigError(
            f"{video_id}: {fault[video_id]}", where=path, fix="Name a step that holds this video."
        )
    return store.videos([video_id]).batch(np.zeros(1, np.int64), _Fresh())


class _Fresh:
    """Memory for one batch."""

    def empty(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)


def picture(match: WordMatch, title: str) -> bytes:
    """Return a PNG: words above, frames below, a line for every pair by its similarity. Equal
    matches give equal bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n, m = match.similarity.shape
    width = max(n, m)
    figure = Figure(figsize=(1.0 + 0.85 * width, 6.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xlim=(-0.7, width - 0.3), ylim=(-1.15, 1.6), aspect=_TALLER)
    axes.axis("off")
    axes.set_title(f"{title}\n{match.title}".replace("$", r"\$"), fontsize=10, color=INK)
    places = [np.arange(count) + (width - count) / 2 for count in (n, m)]
    _lines(axes, match, places)
    _words(axes, match, places[0])
    _pictures(axes, match, places[1])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _lines(axes: "Axes", match: WordMatch, places: list[np.ndarray]) -> None:
    """Colour, width and opacity by similarity, between the smallest and the largest."""
    from matplotlib import colormaps

    low, high = match.similarity.min(), match.similarity.max()
    share = (match.similarity - low) / max(high - low, 1e-9)
    for i, j in np.ndindex(*share.shape):
        colour = colormaps[SCALE](float(share[i, j]))
        axes.plot(
            [places[0][i], places[1][j]],
            [0.95, 0.0],
            color=colour,
            linewidth=_WIDEST * share[i, j],
            alpha=float(share[i, j]),
            zorder=float(share[i, j]),
        )


def _words(axes: "Axes", match: WordMatch, places: np.ndarray) -> None:
    inner = (
        match.word_weight[1:-1] if len(places) > 2 else match.word_weight
    )  # the ends are far heavier than words
    for i, x in enumerate(places):
        axes.text(
            x,
            1.0,
            match.words[i].replace("$", r"\$"),
            ha="center",
            va="bottom",
            fontsize=9,
            color=INK,
        )
        _dot(
            axes,
            x,
            y=1.22,
            value=match.word_weight[i],
            among=inner,
            title="weight" if i == 0 else "",
        )
        _dot(
            axes,
            x,
            y=1.42,
            value=match.best_frame[i],
            among=match.best_frame,
            title="similarity" if i == 0 else "",
        )


def _pictures(axes: "Axes", match: WordMatch, places: np.ndarray) -> None:
    for j, x in enumerate(places):
        if match.frames is None:
            axes.text(x, -0.06, f"frame {j}", ha="center", va="top", fontsize=8, color=INK)
        else:
            axes.imshow(
                match.frames[j], extent=_place(x, match.frames[j]), aspect=_TALLER, zorder=3
            )
        _dot(
            axes,
            x,
            y=-0.74,
            value=match.best_word[j],
            among=match.best_word,
            title="similarity" if j == 0 else "",
        )
        _dot(
            axes,
            x,
            y=-0.94,
            value=match.frame_weight[j],
            among=match.frame_weight,
            title="weight" if j == 0 else "",
        )
    axes.set(xlim=(-0.7, max(len(match.words), len(places)) - 0.3), ylim=(-1.15, 1.6))


def _place(x: float, frame: np.ndarray) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a frame below x, in its own shape."""
    height, width = frame.shape[:2]
    wide = min(_FRAME[0], _FRAME[1] * _TALLER * width / height)
    tall = wide * height / width / _TALLER
    return x - wide / 2, x + wide / 2, -0.02 - tall, -0.02


def _dot(axes: "Axes", x: float, y: float, value: float, among: np.ndarray, title: str) -> None:
    """A number with a dot, coloured by its place between the smallest and the largest of its
    kind.
    """
    from matplotlib import colormaps

    low, high = float(among.min()), float(among.max())
    share = min(max((float(value) - low) / max(high - low, 1e-9), 0.0), 1.0)
    axes.scatter([x], [y], s=22, color=[colormaps[SCALE](share)], zorder=4)
    axes.text(x, y + 0.04, f"{value:.3f}", ha="center", va="bottom", fontsize=7, color=MUTED)
    if title:
        axes.text(x - 0.45, y, title, ha="right", va="center", fontsize=7, color=MUTED)
