"""DiffusionRet models small enough for tests; batches are those of small_drl."""

import torch
from torch import Tensor

from models.base import Assets
from models.clip.towers import CLIP
from models.diffusion_ret.model import DiffusionRet, build
from models.diffusion_ret.options import Options
from tests.models.drl import small_drl


def small_diffusion(stage: str = "generation", seed: int = 0, **options: object) -> DiffusionRet:
    """In eval mode, no weight at its first value; 8 words, 4 frames; 5 steps, 3 negatives, 2
    candidates.
    """
    torch.manual_seed(seed)
    sizes = {
        "backbone": "given",
        "words": small_drl.WORDS,
        "frames": small_drl.FRAMES,
        "temporal_layers": 1,
    }
    few = {"diffusion_steps": 5, "negatives": 3, "t2v_candidates": 2, "v2t_candidates": 2}
    first = Options.model_validate(sizes | few | {"stage": "discrimination"} | options)
    model = build(first, Assets(clip=CLIP(small_drl.SIZES).state_dict()))
    if stage == "generation":
        chosen = first.model_copy(update={"stage": stage})
        model = build(chosen, Assets(init=model.state_dict(), is_start=True))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn_like(value))
    return model.eval()


def batch(n: int = 4, seed: int = 1) -> dict[str, Tensor]:
    """As of small_drl, each pair from a video of its own."""
    return small_drl.batch(n, seed) | {"video_index": torch.arange(n)}
