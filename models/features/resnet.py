"""ResNet-152 and ResNeXt-101 as extractors of frame features, with the parameter names of
torchvision.

Papers: He et al. 2016, Deep Residual Learning, section 4.1 (bottleneck, table 1); Xie et al. 2017,
Aggregated Residual Transformations, table 1. Names and shapes: pytorch/vision:
torchvision/models/resnet.py (docs/specs/dual-encoding.md, section 12.6). Where we differ
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

LAYOUTS = {  # blocks per layer, groups, width per group
    "resnet152": ((3, 8, 36, 3), 1, 64),
    "resnext101_32x8d": ((3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": ((3, 4, 23, 3), 64, 4),
}
_EXPANSION = 4
_MEAN, _STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # of the ImageNet weights, after division by 255


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped, with the stride), 1x1, each with batch norm, added to the shortcut. (N, C,
    H, W).
    """

    def __init__(self, channels: int, planes: int, stride: int, groups: int, width: int):
        super().__init__()
        inner, out = planes * width // 64 * groups, planes * _EXPANSION
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
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)).add_(self.downsample(x)), inplace=True)


class ResNet(nn.Module):
    """uint8 RGB images (N, H, W, 3) -> float32 (N, 2048), the pooled output of the last stage. For
    inference.
    """

    dim = 512 * _EXPANSION

    def __init__(self, blocks: tuple[int, ...], groups: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for n, count in enumerate(blocks, 1):
            planes, layer = 64 << (n - 1), []
            for block in range(count):
                layer.append(
                    Bottleneck(channels, planes, 2 if n > 1 and block == 0 else 1, groups, width)
                )
                channels = planes * _EXPANSION
            setattr(self, f"layer{n}", nn.Sequential(*layer))
        self.fc = nn.Linear(channels, 1000)

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (_MEAN, _STD))
        x = images.permute(0, 3, 1, 2)  # (N, 3, H, W), a view: these are channels_last strides
        x = ((x.float() / 255 - mean) / std).to(self.conv1.weight.dtype)
        x = F.max_pool2d(
            F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, padding=1
        )  # (N, 64, H/4, W/4)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return x.float().mean((2, 3))


def build(name: str) -> ResNet:
    """An untrained network of LAYOUTS; inside `torch.device("meta")` it takes no memory."""
    return ResNet(*LAYOUTS[name])


def load(name: str, state: Mapping[str, Tensor]) -> ResNet:
    """The network with these weights, ready for inference: evaluation mode, batch norms folded, no
    `fc`.

    `state`: a torchvision state dict. `fc` may be absent, and so may the batch counters that no
    inference uses. Raises ValueError that names all missing, unexpected and misshapen keys.
    """
    with torch.device("meta"):
        network = build(name)
    wanted = network.state_dict()
    _check_keys(name, wanted, state)
    counters = {
        key: torch.zeros((), dtype=torch.long)
        for key in wanted
        if key.endswith("num_batches_tracked")
    }
    network.load_state_dict(
        {**counters, **{k: v for k, v in state.items() if k in wanted}}, strict=False, assign=True
    )
    network.fc = nn.Identity()
    return fold_batch_norms(network.eval()).requires_grad_(False)


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Replace each (convolution, batch norm) pair by one convolution with bias; exact up to float32
    rounding.
    """
    for module in list(network.modules()):
        pairs = (
            [(f"conv{n}", f"bn{n}") for n in (1, 2, 3)]
            if not isinstance(module, nn.Sequential)
            else [("0", "1")]
        )
        for conv_name, norm_name in pairs:
            norm = getattr(module, norm_name, None)
            if isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, _folded(getattr(module, conv_name), norm))
                setattr(module, norm_name, nn.Identity())
    return network


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    conv.weight = nn.Parameter(
        (conv.weight.double() * scale.view(-1, 1, 1, 1)).float(), requires_grad=False
    )
    conv.bias = nn.Parameter(
        (norm.bias.double() - norm.running_mean.double() * scale).float(), requires_grad=False
    )
    return conv


def _check_keys(name: str, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    optional = {
        key for key in wanted if key.startswith("fc.") or key.endswith("num_batches_tracked")
    }
    faults = {
        "missing": [k for k in wanted if k not in state and k not in optional],
        "unexpected": [k for k in state if k not in wanted],
        "of another shape": [k for k in state if k in wanted and state[k].shape != wanted[k].shape],
    }
    told = [
        f"{len(keys)} {what}: {', '.join(keys[:5])}{' ...' if len(keys) > 5 else ''}"
        for what, keys in faults.items()
        if keys
    ]
    if told:
        raise ValueError(f"these are not the weights of {name}: {'; '.join(told)}")
