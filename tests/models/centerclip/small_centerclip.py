"""A CenterCLIP small enough for tests, and batches for it."""

import torch
from torch import Tensor

from models.base import Assets
from models.centerclip.model import CenterCLIP, build
from models.centerclip.options import Options
from models.clip.sizes import Sizes
from tests.models.clip.small_clip import small_clip

SIZES = Sizes(64, 32, 64, 3, 8, 64, text_layers=2, context=12, vocabulary=50)  # a grid of 4 x 4
FRAMES = 4


def small(seed: int = 0, **options: object) -> CenterCLIP:
    """In eval mode, around a CLIP whose weights are no initial ones; options: of the model besides
    its sizes.
    """
    o = Options(**({"backbone": "given", "frames": FRAMES, "words": 12} | options))
    torch.manual_seed(seed)
    return build(o, Assets(clip=small_clip(SIZES, seed).state_dict())).eval()


def batch(videos: int = 3, frames: int = FRAMES, seed: int = 0) -> dict[str, Tensor]:
    """Random texts of full length and random frames; the last video has two real frames."""
    rng = torch.Generator().manual_seed(seed)
    mask = torch.ones(videos, frames, dtype=torch.bool)
    mask[-1, 2:] = False
    ids = torch.randint(1, 49, (videos, 12), generator=rng)
    ids[:, -1] = 49
    pictures = torch.randint(0, 256, (videos, frames, 32, 32, 3), generator=rng, dtype=torch.uint8)
    return {
        "text": ids,
        "text_mask": ids > 0,
        "frames": pictures,
        "video_mask": mask,
        "video_index": torch.arange(videos),
    }


def scores(model: CenterCLIP, given: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model.score(model.encode_text(given), model.encode_video(given))["similarity"]
