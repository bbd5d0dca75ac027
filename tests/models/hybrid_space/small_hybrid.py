"""A hybrid space small enough for tests, and batches for it."""

import torch
from torch.nn.functional import pad

from models.base import Assets
from models.hybrid_space.model import HybridSpace, build
from models.hybrid_space.options import Options

SMALL = {
    "latent_dim": 8,
    "dropout": 0,
    "video": {"rnn": 4, "kernels": [2, 3], "channels": 5},
    "text": {"rnn": 3, "kernels": [2, 4], "channels": 4, "word_dim": 6},
}
ASSETS = Assets(n_words=30, n_tags=7, feature_dim=9)
LENGTHS = torch.tensor([5, 1, 6, 3, 4, 2])


def small(**options: object) -> HybridSpace:
    torch.manual_seed(3)
    return build(Options.model_validate(SMALL | options), ASSETS)


def batch(extra: int = 0, n: int = 4) -> dict[str, torch.Tensor]:
    """n pairs of 1 to 6 words and frames, with `extra` columns of padding."""
    rng = torch.Generator().manual_seed(5)
    mask = torch.arange(6) < LENGTHS[:n, None]
    features = torch.randn(n, 6, 9, generator=rng) * mask[..., None]
    text = torch.randint(4, 30, (n, 6), generator=rng) * mask
    longer = pad(mask, (0, extra))
    return {
        "features": pad(features, (0, 0, 0, extra)),
        "video_mask": longer,
        "text": pad(text, (0, extra)),
        "text_mask": longer,
        "tags": torch.rand(n, 7, generator=rng),
    }
