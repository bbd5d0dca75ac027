"""Patches that look at the frame before and after as well: CLIP4Clip's `linear_patch 3d`.

Source: ArrowLuo/CLIP4Clip: modules/module_clip.py; CenterCLIP and DGL have it from there
(docs/specs/centerclip.md, section 3, docs/specs/dgl.md, section 5).
"""

import torch
from torch import Tensor, nn


class Patches3d(nn.Conv3d):
    """A convolution over three frames with the patches and the width of CLIP's own `conv1`."""

    def __init__(self, conv1: nn.Conv2d):
        super().__init__(
            in_channels=3,
            out_channels=conv1.out_channels,
            kernel_size=(3, *conv1.kernel_size),
            stride=(1, *conv1.stride),
            padding=(1, 0, 0),
            bias=False,
        )

    @torch.no_grad()
    def start_from(self, conv1: nn.Conv2d) -> None:
        """Start as CLIP's patches in the middle frame and 0 beside it, as published."""
        self.weight.zero_()
        self.weight[:, :, 1] = conv1.weight

    def embed(self, frames: Tensor, n_frames: int) -> Tensor:
        """Normalised frames (B*T, 3, S, S) of videos of T = `n_frames` -> patches (B*T, P, W)."""
        clips = frames.unflatten(0, (-1, n_frames)).transpose(1, 2)  # (B, 3, T, S, S)
        patches = self(clips)  # (B, W, T, G, G)
        patches = patches.transpose(1, 2).flatten(0, 1)  # (B*T, W, G, G)
        return patches.flatten(2).transpose(1, 2)
