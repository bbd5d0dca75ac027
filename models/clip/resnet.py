"""The ResNet vision towers of CLIP (RN50 to RN50x64).

Paper: Radford et al. 2021, section 2.4: a ResNet-D (He et al. 2019, Bag of Tricks) whose strides
are average pools (Zhang 2019) and whose last pool is attention. Names and shapes: openai/CLIP:
clip/model.py (docs/specs/clip-backbone.md, section 2). Where we differ
- The attention pool computes the one query that is read, the mean token, by a fused kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.clip.pixels import Pixels
from models.clip.sizes import HEAD_WIDTH, Sizes, Variant

_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, average pool by the stride, 1x1, added to a shortcut pooled alike. (N, C, H, W)."""

    def __init__(self, channels: int, planes: int, stride: int):
        super().__init__()
        out = planes * _EXPANSION
        self.stride = stride
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        nn.init.zeros_(self.bn3.weight)  # every block starts as its shortcut
        self.downsample = nn.Identity()
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self._pool(F.relu(self.bn2(self.conv2(y))))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(self._pool(x)))

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """What the mean of all tokens finds when it looks at them and itself. (N, C, G, G) -> (N,
    D).
    """

    def __init__(self, grid: int, channels: int, heads: int, embed: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(
            torch.randn(grid**2 + 1, channels) * channels**-0.5
        )
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, embed)
        for layer in (self.k_proj, self.q_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=channels**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)  # (N, 1+G*G, C)
        tokens = tokens + self.positional_embedding.to(tokens.dtype)
        parts = self.q_proj(tokens[:, :1]), self.k_proj(tokens), self.v_proj(tokens)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        found = F.scaled_dot_product_attention(q, k, v)  # (N, heads, 1, 64)
        return self.c_proj(found.transpose(1, 2).flatten(1))


class ModifiedResNet(nn.Module):
    """Frames as `Pixels` takes them -> (N, D). Its parts: stem, layer1 to layer4, attnpool."""

    def __init__(self, sizes: Sizes, variant: Variant):
        super().__init__()
        width = sizes.vision_width
        self.pixels = Pixels(sizes.pixels, variant)
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        channels = width
        for n, count in enumerate(sizes.vision_layers):
            planes, layer = width << n, []
            for block in range(count):
                layer.append(Bottleneck(channels, planes, 2 if n and not block else 1))
                channels = planes * _EXPANSION
            setattr(self, f"layer{n + 1}", nn.Sequential(*layer))
        self.attnpool = AttentionPool(sizes.grid, channels, channels // HEAD_WIDTH, sizes.embed)

    @property
    def layers(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4

    def stem(self, frames: Tensor) -> Tensor:
        """(N, w, S/4, S/4)."""
        x = self.pixels(frames).to(self.conv1.weight.dtype)
        for n in (1, 2, 3):
            x = F.relu(getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(x)))
        return F.avg_pool2d(x, 2)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.stem(frames)
        for layer in self.layers:
            x = layer(x)
        return self.attnpool(x)
