"""Where in the frames of a video a model with global prompts looks: heat maps, and how much each
frame gets.

As the figures of knightyxp/DGL show it (README, visualization.py; docs/specs/dgl.md, section 13):
frames with maps over them at half opacity (here viridis, published "jet"), enlarged bilinearly,
scaled to each frame's own range. Our own: the scale of a whole video, so that frames can be
compared, the curve below, and any block.
What is drawn there is not recorded; here it is the mean over heads of the softmax weights, of
global prompt 0, of each frame's class token and of its prompt 0.
"""

import io
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from models.base import RetrievalModel
from pipeline.colours import BLUE, HEAT, INK, MUTED

_CURVE = BLUE
_MOST_COLUMNS = 12
_TITLES = {"global": "global prompt", "class": "class token", "frame": "frame prompt"}
_TINY = 1e-6  # published: keeps a map without any range from dividing by 0


@dataclass(frozen=True)
class Looks:
    """frames uint8 (T, S, S, 3); maps: by who looks ("global", "class", "frame") float32 (T, G, G);
    the block, from 1.

    The weights of a global prompt are shared by all patches of the video, those of the others by
    their own frame; what is missing to 1 went to class tokens and prompts.
    """

    frames: np.ndarray
    maps: dict[str, np.ndarray]
    block: int

    def rows(self) -> list[dict]:
        """Return [{"frame", and by who looks the sum over the patches of this frame}], from 0."""
        sums = {_TITLES[name]: maps.sum((1, 2)) for name, maps in self.maps.items()}
        return [
            {"frame": t} | {name: round(float(values[t]), 5) for name, values in sums.items()}
            for t in range(len(self.frames))
        ]


def read(model: RetrievalModel, frames: torch.Tensor, block: int | None = None) -> Looks:
    """Return where a model with `attention_maps` looks in the frames (1, T, S, S, 3) of a video.

    block: None for the last one. Raises models.base.Mismatch for a block that there is not.
    """
    block = block or len(model.clip.visual.blocks)
    maps = {
        name: found[0, :, 0].numpy() for name, found in model.attention_maps(frames, block).items()
    }
    return Looks(frames[0].numpy(), maps, block)


def overlaid(looks: Looks, name: str, per_video: bool = False) -> np.ndarray:
    """Return the frames with the maps of one kind over them, uint8 (T, S, S, 3).

    per_video: the colours mean the same in all frames; otherwise each frame has its own scale, as
    published.
    """
    from matplotlib import colormaps

    maps = torch.from_numpy(looks.maps[name])[:, None]
    large = F.interpolate(maps, size=looks.frames.shape[1:3], mode="bilinear", align_corners=True)[
        :, 0
    ].numpy()
    axes = None if per_video else (1, 2)
    low, high = large.min(axis=axes, keepdims=True), large.max(axis=axes, keepdims=True)
    heat = colormaps[HEAT]((large - low) / (high - low + _TINY))[..., :3]
    return ((looks.frames / 255 + heat) * 127.5).round().astype(np.uint8)


def picture(looks: Looks, title: str, per_video: bool = False) -> bytes:
    """Return a PNG: the frames (at most 12, evenly spaced), a row for each kind of map, and the
    share of attention per frame.

    Equal looks give equal bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = np.unique(
        np.linspace(0, len(looks.frames) - 1, min(_MOST_COLUMNS, len(looks.frames)))
        .round()
        .astype(int)
    )
    strips = {"frames": looks.frames} | {
        _TITLES[n]: overlaid(looks, n, per_video) for n in looks.maps
    }
    figure = Figure(figsize=(1.4 + len(shown), 1.9 + len(strips)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(strips) + 1, 1, height_ratios=[1] * len(strips) + [1.2])
    for axes, (name, strip) in zip(rows, strips.items(), strict=False):
        axes.imshow(np.concatenate(list(strip[shown]), axis=1))
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8, color=INK)
        axes.spines[:].set_visible(False)
    curve = rows[-1]
    curve.plot(
        looks.maps["global"].sum((1, 2)), color=_CURVE, marker=".", linewidth=1.5, clip_on=False
    )
    curve.set(xlim=(-0.5, len(looks.frames) - 0.5), ylim=(0, None))
    curve.set_xlabel("frame", fontsize=8, color=MUTED)
    curve.set_ylabel("global prompt", rotation=0, ha="right", va="center", fontsize=8, color=INK)
    curve.tick_params(labelsize=7, colors=MUTED)
    curve.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{title}   (block {looks.block})".replace("$", r"\$"), fontsize=10, color=INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
