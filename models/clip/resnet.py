"""The ResNet vision towers of CLIP (RN50 to RN50x64).

Paper: Radford et al. 2021, section 2.4: a ResNet-D (He et al. 2019, Bag of Tricks) whose strides
are average pools (Zhang 2019) and whose last pool is attention. Names and shapes: openai/CLIP:
clip/model.py (docs/specs/clip-backbone.md, section 2).

Where we differ
- The attention pool computes only the query that is read, the mean token, with a fused kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.clip.blocks import join_heads, split_heads
from models.clip.pixels import Pixels
from models.clip.sizes import HEAD_WIDTH, Sizes, Variant

_EXPANSION = 4


class PooledBottleneck(nn.Module):
    """1x1, 3x3, average pool by the stride, 1x1, added to a shortcut that is pooled alike."""

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
        """Run the block: (N, C, H, W) becomes (N, 4 planes, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self._pool(y)))
        return F.relu(y + self.downsample(self._pool(x)))

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class AttentionPool(nn.Module):
    """What the mean of all tokens finds when it looks at them and at itself."""

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
        """Pool a grid of features (N, C, G, G) into one vector each, (N, D)."""
        tokens = x.flatten(2).transpose(1, 2)  # (N, G*G, C)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)  # (N, 1+G*G, C)
        tokens = tokens + self.positional_embedding.to(tokens.dtype)
        q = split_heads(self.q_proj(tokens[:, :1]), self.heads)  # (N, heads, 1, C / heads)
        k = split_heads(self.k_proj(tokens), self.heads)  # (N, heads, 1+G*G, C / heads)
        v = split_heads(self.v_proj(tokens), self.heads)
        found = F.scaled_dot_product_attention(q, k, v)  # (N, heads, 1, C / heads)
        return self.c_proj(join_heads(found)[:, 0])


class ModifiedResNet(nn.Module):
    """The whole tower. Its parts: stem, layer1 to layer4, attnpool."""

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
        for n, n_blocks in enumerate(sizes.vision_layers):
            planes = width << n
            layer = []
            for block in range(n_blocks):
                stride = 2 if n > 0 and block == 0 else 1
                layer.append(PooledBottleneck(channels, planes, stride))
                channels = planes * _EXPANSION
            setattr(self, f"layer{n + 1}", nn.Sequential(*layer))
        self.attnpool = AttentionPool(sizes.grid, channels, channels // HEAD_WIDTH, sizes.embed)

    @property
    def layers(self) -> tuple[nn.Sequential, ...]:
        """The four stages in their order."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def stem(self, frames: Tensor) -> Tensor:
        """Frames as `Pixels` takes them -> (N, w, S/4, S/4)."""
        x = self.pixels(frames).to(self.conv1.weight.dtype)
        x = F.relu(self.bn1(self.conv1(x)))  # (N, w/2, S/2, S/2)
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))  # (N, w, S/2, S/2)
        return F.avg_pool2d(x, 2)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames as `Pixels` takes them -> (N, D)."""
        x = self.stem(frames)
        for layer in self.layers:
            x = layer(x)
        return self.attnpool(x)
