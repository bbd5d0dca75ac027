"""DRL models small enough for tests, and batches for them."""

import torch
from torch import Tensor

from models.base import Assets
from models.clip.sizes import Sizes
from models.clip.towers import CLIP
from models.drl.model import Drl, build
from models.drl.options import Options

SIZES = Sizes(64, 16, 64, 1, 8, 64, text_layers=1, context=20, vocabulary=50)
WORDS, FRAMES = 8, 4


def small_drl(seed: int = 0, **options: object) -> Drl:
    """In eval mode, around a CLIP whose weights are not at their first values; 8 words, 4
    frames.
    """
    torch.manual_seed(seed)
    clip = CLIP(SIZES)
    with torch.no_grad():
        for value in clip.parameters():
            value.add_(0.05 * torch.randn_like(value))
    chosen = Options.model_validate(
        {"backbone": "given", "words": WORDS, "frames": FRAMES} | options
    )
    model = build(chosen, Assets(clip=clip.state_dict()))
    with torch.no_grad():
        for part in model.new_parts():
            for value in part.parameters():
                value.add_(0.05 * torch.randn_like(value))
    return model.eval()


def batch(n: int = 4, seed: int = 1) -> dict[str, Tensor]:
    """n texts of 3 to 8 words and n videos of 1 to 4 frames, behind them noise that must not
    matter.
    """
    random = torch.Generator().manual_seed(seed)
    words = 3 + torch.arange(n) % (WORDS - 2)
    frames = 1 + torch.arange(n) % FRAMES
    return {
        "text": torch.randint(1, 49, (n, WORDS), generator=random),
        "text_mask": torch.arange(WORDS) < words[:, None],
        "frames": torch.randint(
            0, 256, (n, FRAMES, 16, 16, 3), generator=random, dtype=torch.uint8
        ),
        "video_mask": torch.arange(FRAMES) < frames[:, None],
    }
