"""CLIPs small enough for tests, with weights of a size that shows mistakes."""

import torch
from torch import Tensor

from models.clip.sizes import Sizes
from models.clip.towers import CLIP

VIT = Sizes(
    16, 32, 128, 3, 8, 64, text_layers=2, context=12, vocabulary=50
)  # two heads, a grid of 4 x 4
RESNET = Sizes(16, 64, 4, (1, 2, 1, 1), 0, 64, text_layers=1, context=12, vocabulary=50)
END = 49  # the largest id


def small_clip(sizes: Sizes = VIT, seed: int = 0) -> CLIP:
    """In eval mode; norms and biases are not at their initial 1 and 0."""
    torch.manual_seed(seed)
    model = CLIP(sizes)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn_like(value))
    return model.eval()


def frames(count: int, sizes: Sizes = VIT) -> Tensor:
    """uint8 (count, S, S, 3)."""
    return torch.randint(0, 256, (count, sizes.pixels, sizes.pixels, 3), dtype=torch.uint8)


def texts() -> tuple[Tensor, Tensor]:
    """Ids (3, 12) of texts of 4, 12 and 7 tokens, zeros behind, and their mask."""
    lengths = torch.tensor([4, 12, 7])
    real = torch.arange(12) < lengths[:, None]
    ids = torch.randint(1, END, (3, 12)) * real
    ids[torch.arange(3), lengths - 1] = END
    return ids, real
