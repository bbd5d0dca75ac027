"""From stored frames to what a CLIP vision tower reads, normalised on the device of the tower.

Source: openai/CLIP: clip/clip.py (mean and deviation of the pixels); docs/specs/clip-backbone.md,
section 7.
"""

import torch
from torch import Tensor, nn

from models.base import Mismatch
from models.clip.sizes import Variant


class Pixels(nn.Module):
    """Normalise frames of `size` pixels a side. The state dict holds nothing of it."""

    def __init__(self, size: int, variant: Variant):
        super().__init__()
        self.size = size
        # no weight file brings these: they are real numbers on the CPU even if the rest of the
        # model is built without memory (`unallocated`)
        mean = torch.tensor(variant.mean, device="cpu")
        std = torch.tensor(variant.std, device="cpu")
        self.register_buffer("mean", 255 * mean, persistent=False)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames, uint8 RGB (N, S, S, 3) or normalised floats (N, 3, S, S) -> floats (N, 3, S, S).

        The result of uint8 frames is channels last in memory, which convolutions prefer. Raises
        Mismatch for frames of another size.
        """
        is_raw = frames.dtype == torch.uint8
        expected = (self.size, self.size, 3) if is_raw else (3, self.size, self.size)
        if tuple(frames.shape[1:]) != expected:
            raise Mismatch(
                f"{frames.dtype} frames of {tuple(frames.shape[1:])}, the vision tower reads"
                f" {expected}",
                f"Cut the frames to {self.size} pixels (tensors: frames: size), or use other"
                " weights.",
            )
        if not is_raw:
            return frames
        return frames.sub(self.mean).mul_(self.scale).movedim(-1, 1)
