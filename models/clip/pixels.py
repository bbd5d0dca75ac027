"""From stored frames to what a CLIP vision tower reads: normalised on the device the tower is on.

Source: openai/CLIP: clip/clip.py (mean and deviation of the pixels); docs/specs/clip-backbone.md,
section 7.
"""

import torch
from torch import Tensor, nn

from models.base import Mismatch
from models.clip.sizes import Variant


class Pixels(nn.Module):
    """Frames, uint8 RGB (N, S, S, 3) or floats already normalised (N, 3, S, S) -> normalised (N, 3,
    S, S).

    Nothing of it is in the state dict. The result of uint8 frames is channels last in memory, which
    convolutions like.
    """

    def __init__(self, size: int, variant: Variant):
        super().__init__()
        self.size = size
        # on the CPU even where the rest is built without memory (torch.device("meta")): they come
        # with no weight file
        mean, std = (torch.tensor(v, device="cpu") for v in (variant.mean, variant.std))
        self.register_buffer("mean", 255 * mean, persistent=False)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        is_raw = frames.dtype == torch.uint8
        wanted = (self.size, self.size, 3) if is_raw else (3, self.size, self.size)
        if tuple(frames.shape[1:]) != wanted:
            raise Mismatch(
                f"{frames.dtype} frames of {tuple(frames.shape[1:])}, the vision tower reads"
                f" {wanted}",
                f"Cut the frames to {self.size} pixels (tensors: frames: size), or use other"
                " weights.",
            )
        return frames.sub(self.mean).mul_(self.scale).movedim(-1, 1) if is_raw else frames
