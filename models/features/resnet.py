"""ResNet-152 and ResNeXt-101 as extractors of frame features, with torchvision's parameter names.

Papers: He et al. 2016, Deep Residual Learning, section 4.1 (bottleneck, table 1); Xie et al. 2017,
Aggregated Residual Transformations, table 1. Names and shapes: pytorch/vision:
torchvision/models/resnet.py (docs/specs/dual-encoding.md, section 12.6).

Where we differ
- The stride sits on the 3x3 convolution, as in torchvision, not on the first 1x1 as in the paper.
- `forward` ends with the average pool, 2048 values; `fc` exists only because the published files
  hold it.
- At inference every batch norm is folded into its convolution: the same function up to rounding,
  fewer passes.
- The networks of the published features (MXNet, pre-activation) are others: same shape and role,
  not the same numbers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.unallocated import unallocated

LAYOUTS = {  # blocks per layer, groups, width per group
    "resnet152": ((3, 8, 36, 3), 1, 64),
    "resnext101_32x8d": ((3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": ((3, 4, 23, 3), 64, 4),
}
_EXPANSION = 4
# of the ImageNet weights, after division by 255
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped, with the stride), 1x1, each with batch norm, added to the shortcut."""

    def __init__(self, channels: int, planes: int, stride: int, groups: int, width: int):
        super().__init__()
        inner = planes * width // 64 * groups
        out = planes * _EXPANSION
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = nn.Identity()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Run the block: (N, C, H, W) becomes (N, 4 planes, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y.add_(self.downsample(x)), inplace=True)


class ResNet(nn.Module):
    """The pooled output of the last stage. For inference."""

    dim = 512 * _EXPANSION

    def __init__(self, blocks: tuple[int, ...], groups: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for n, n_blocks in enumerate(blocks):
            planes = 64 << n
            layer = []
            for block in range(n_blocks):
                stride = 2 if n > 0 and block == 0 else 1
                layer.append(Bottleneck(channels, planes, stride, groups, width))
                channels = planes * _EXPANSION
            setattr(self, f"layer{n + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(channels, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB images (N, H, W, 3) -> float32 (N, 2048)."""
        mean = torch.tensor(_MEAN, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(_STD, device=images.device).view(1, 3, 1, 1)
        x = images.permute(0, 3, 1, 2)  # (N, 3, H, W), a view: these are channels_last strides
        x = ((x.float() / 255 - mean) / std).to(self.conv1.weight.dtype)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (N, 64, H/2, W/2)
        x = F.max_pool2d(x, 3, 2, padding=1)  # (N, 64, H/4, W/4)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return x.float().mean((2, 3))


def build_resnet(name: str) -> ResNet:
    """Return an untrained network of LAYOUTS; inside `unallocated()` it takes no memory."""
    blocks, groups, width = LAYOUTS[name]
    return ResNet(blocks, groups, width)


def load_resnet(name: str, state: Mapping[str, Tensor]) -> ResNet:
    """Return the network with these weights for inference: batch norms folded, without `fc`.

    It maps uint8 RGB images (N, H, W, 3) to float32 (N, 2048). state: a torchvision state dict.
    `fc` may be absent, and so may the batch counters that no inference uses. Raises ValueError that
    names all missing, unexpected and misshapen keys.
    """
    with unallocated():
        network = build_resnet(name)
    wanted = network.state_dict()
    _check_keys(name, wanted, state)
    values = {
        key: torch.zeros((), dtype=torch.long)
        for key in wanted
        if key.endswith("num_batches_tracked")
    }
    values |= {key: value for key, value in state.items() if key in wanted}
    network.load_state_dict(values, strict=False, assign=True)
    network.fc = nn.Identity()
    return fold_batch_norms(network.eval()).requires_grad_(False)


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Replace each convolution and its batch norm by one convolution with bias, in place.

    The result is exact up to float32 rounding for inputs of any shape.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            pairs = [("0", "1")]
        else:
            pairs = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")]
        for conv_name, norm_name in pairs:
            norm = getattr(module, norm_name, None)
            if isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, _fold(getattr(module, conv_name), norm))
                setattr(module, norm_name, nn.Identity())
    return network


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()  # (C,)
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    conv.weight = nn.Parameter(weight.float(), requires_grad=False)
    conv.bias = nn.Parameter(bias.float(), requires_grad=False)
    return conv


def _check_keys(name: str, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise ValueError that names all missing, unexpected and misshapen keys."""
    optional = {
        key for key in wanted if key.startswith("fc.") or key.endswith("num_batches_tracked")
    }
    faults = {
        "missing": [key for key in wanted if key not in state and key not in optional],
        "unexpected": [key for key in state if key not in wanted],
        "of another shape": [
            key for key in state if key in wanted and state[key].shape != wanted[key].shape
        ],
    }
    told = []
    for what, keys in faults.items():
        if keys:
            more = " ..." if len(keys) > 5 else ""
            told.append(f"{len(keys)} {what}: {', '.join(keys[:5])}{more}")
    if told:
        raise ValueError(f"these are not the weights of {name}: {'; '.join(told)}")
