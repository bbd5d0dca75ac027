"""Dual Encoding++ small enough for tests, and batches for it."""

import torch

from models.base import Assets
from models.dual_encoding.model import DualEncoding, build
from models.dual_encoding.options import Options

SMALL = {
    "latent_dim": 8,
    "video": {"rnn": 4, "kernels": [2, 3], "channels": 5, "dropout": 0},
    "text": {"rnn": 3, "kernels": [2, 4], "channels": [4, 6], "dropout": 0, "word_dim": 6},
}
ASSETS = Assets(n_words=30, n_tags=7, feature_dim=9)
LENGTHS = {"video": torch.tensor([5, 1, 8, 3, 2]), "text": torch.tensor([2, 6, 1, 4, 3])}


def small(**options: object) -> DualEncoding:
    torch.manual_seed(3)
    return build(Options(**SMALL | options), ASSETS)


def small_in_eval(**options: object) -> DualEncoding:
    """In eval mode, with running means and variances that no batch has."""
    model = small(**options).eval()
    for name, value in model.named_buffers():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    return model


def batch(extra: int = 0, rows: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, torch.Tensor]:
    """The chosen ones of four or five pairs, with `extra` columns of padding."""
    rng = torch.Generator().manual_seed(5)
    n = max(4, *(row + 1 for row in rows))
    masks = {
        side: torch.arange(int(lengths.max()) + extra) < lengths[:n, None]
        for side, lengths in LENGTHS.items()
    }
    features = torch.randn(n, 20, 9, generator=rng)[:, : masks["video"].shape[1]]
    text = torch.randint(1, 30, (n, 20), generator=rng)[:, : masks["text"].shape[1]]
    values = {
        "features": features * masks["video"][..., None],
        "video_mask": masks["video"],
        "text": text * masks["text"],
        "text_mask": masks["text"],
        "tags": torch.rand(n, 7, generator=rng),
        "video_index": torch.tensor([0, 1, 2, 1, 3])[:n],
    }
    return {name: value[torch.tensor(rows)] for name, value in values.items()}
