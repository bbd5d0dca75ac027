"""A DGL of a few thousand parameters, and a batch for it."""

import torch
from torch import Tensor

from models.base import Assets
from models.clip.sizes import Sizes
from models.clip.towers import CLIP
from models.dgl.model import Dgl, build
from models.dgl.options import Options

WORDS, FRAMES, START, END = 10, 3, 58, 59
SIZES = Sizes(
    embed=32,
    pixels=16,
    vision_width=64,
    vision_layers=3,
    patch=8,
    text_width=64,
    text_layers=3,
    context=16,
    vocabulary=60,
)


def small_clip(seed: int = 0, **sizes: int) -> CLIP:
    torch.manual_seed(seed)
    return CLIP(Sizes(**(vars(SIZES) | sizes)))


def small_dgl(seed: int = 0, sizes: dict[str, int] | None = None, **options: object) -> Dgl:
    settings = {"backbone": "given", "words": WORDS, "frames": FRAMES, "layers": 3} | options
    clip = small_clip(seed, **(sizes or {})).state_dict()
    return build(Options(**settings), Assets(clip=clip)).eval()


def batch(n: int = 4, frames: int = FRAMES) -> dict[str, Tensor]:
    """n texts of 3 and more tokens, and n videos."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, START, (n, WORDS), generator=generator)
    ids[:, 0] = START
    for row in range(n):
        end = 2 + row % (WORDS - 2)
        ids[row, end], ids[row, end + 1 :] = END, 0
    pixels = torch.randint(0, 256, (n, frames, 16, 16, 3), generator=generator, dtype=torch.uint8)
    masks = {"text_mask": ids > 0, "video_mask": torch.ones(n, frames, dtype=torch.bool)}
    return {"text": ids, "frames": pixels} | masks
