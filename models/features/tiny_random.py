"""A small frozen network for the demo: its filters are random, from a fixed seed, not trained.

It looks for up to two coloured things in a small picture and says what a linear reader can use:
which colours there are, where each is and how large, and through random filters the outline of the
two largest, seen through a window that follows their place and size (the idea of Jaderberg et al.
2015, Spatial Transformer Networks, without learning). So colour, shape, size and place can be read
from the features although the network has never seen a picture.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SEED = 1
_PALETTE = (  # colour terms as RGB; the first three are surroundings, the rest may be things
    (0, 0, 0),
    (60, 62, 70),
    (112, 114, 116),
    (245, 245, 245),
    (225, 40, 40),
    (240, 130, 30),
    (240, 220, 50),
    (40, 175, 60),
    (60, 200, 210),
    (55, 95, 240),
    (140, 60, 200),
    (240, 120, 205),
)
_SURROUNDINGS = 3
_SHARPNESS = 0.03  # squared RGB distance (0 to 3) over which one colour term gives way to the next
_DOUBT = 0.15  # a pixel counts for a thing only by what exceeds this probability
_THINGS = 2  # whose outlines are described
_WINDOW = 16  # pixels of a side
_REACH = 2.3  # half the side of a window, in standard deviations of the thing
_SMALLEST = 0.04  # a window shrinks no further at this deviation, in half sides of the picture
_FILTERS = 24
_TEXTURES = 16
_GRID = 8


class TinyRandom(nn.Module):
    """A description of a picture, always float32. One picture does not influence another."""

    side = 64
    dim = (
        len(_PALETTE)
        + 3 * (len(_PALETTE) - _SURROUNDINGS)
        + _GRID**2
        + _THINGS * (6**2 + 4 * _FILTERS + 4)
        + 2 * _TEXTURES
    )

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(_SEED)
        palette = torch.tensor(_PALETTE) / 255
        self.register_buffer("palette", palette)
        self.register_buffer("outline", _random_filters(_FILTERS, 1, 7, random))
        self.register_buffer("texture", _random_filters(_TEXTURES, 3, 5, random))
        self.register_buffer("places", torch.linspace(-1, 1, self.side))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB images (N, 64, 64, 3) -> float32 (N, dim)."""
        x = images.permute(0, 3, 1, 2).float() / 255  # (N, 3, S, S)
        named = self._name_colours(x)  # (N, C, S, S)
        things = F.relu(named[:, _SURROUNDINGS:] - _DOUBT) / (1 - _DOUBT)  # (N, K, S, S)
        amount, centre, spread = self._locate(things)  # (N, K), (N, K, 2), (N, K, 2)
        present = amount / (amount + 0.004)
        texture = F.relu(F.conv2d(x, self.texture, padding=2, stride=2))
        features = [
            # the factors give each group about the deviation of the outlines, 0.3: models read
            # features unscaled
            3 * named.mean((2, 3)).sqrt(),
            5 * amount.sqrt(),
            3 * (present[..., None] * centre).flatten(1),
            F.adaptive_avg_pool2d(things.sum(1), _GRID).flatten(1).sqrt(),
            15 * texture.mean((2, 3)),
            texture.amax((2, 3)),
        ]
        rows = torch.arange(len(x), device=x.device)
        for k in amount.topk(_THINGS, dim=1).indices.unbind(1):  # (N,)
            description = self._describe(things[rows, k], centre[rows, k], spread[rows, k])
            features.append(present[rows, k, None] * description)
        return torch.cat(features, 1)

    def _name_colours(self, x: Tensor) -> Tensor:
        """Probability of each colour term at each pixel, (N, 3, S, S) -> (N, C, S, S)."""
        inner = F.conv2d(x, self.palette[:, :, None, None])  # (N, C, S, S)
        closeness = 2 * inner - self.palette.square().sum(1).view(1, -1, 1, 1)
        return (closeness / _SHARPNESS).softmax(1)

    def _locate(self, things: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Amount (N, K) in 0..1, centre and standard deviation (N, K, 2) of maps (N, K, S, S).

        Places are (x, y) in -1..1.
        """
        amount = things.mean((2, 3)) + 1e-6
        along = torch.stack([things.mean(2), things.mean(3)], 2)  # (N, K, 2, S)
        along = along / (self.side * amount[..., None, None])
        centre = (along * self.places).sum(-1)
        spread = ((along * self.places.square()).sum(-1) - centre.square()).clamp_min(0).sqrt()
        return amount, centre, spread

    def _describe(self, thing: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
        """Things (N, S, S) through their windows, and their places: (N, 6*6 + 4 * filters + 4)."""
        reach = spread.amax(1, keepdim=True).clamp_min(_SMALLEST) * _REACH  # (N, 1)
        scale = torch.diag_embed(reach.expand(-1, 2))  # (N, 2, 2)
        window = torch.cat([scale, centre[..., None]], 2)  # (N, 2, 3)
        grid = F.affine_grid(window, [len(thing), 1, _WINDOW, _WINDOW], align_corners=True)
        view = F.grid_sample(thing[:, None], grid, align_corners=True)  # (N, 1, 16, 16)
        view = view / (view.mean((2, 3), keepdim=True) + 0.05)  # faint things look like bright ones
        outline = F.relu(F.conv2d(view, self.outline))
        parts = [
            F.adaptive_avg_pool2d(view, 6).flatten(1),
            F.adaptive_avg_pool2d(outline, 2).flatten(1),
            2 * centre,
            4 * spread,
        ]
        return torch.cat(parts, 1)


def _random_filters(count: int, channels: int, side: int, random: torch.Generator) -> Tensor:
    """Random filters with most of their mean taken off, so that edges matter more than areas."""
    weights = torch.randn(count, channels, side, side, generator=random) / (side * channels**0.5)
    return 1.5 * (weights - 0.8 * weights.mean((1, 2, 3), keepdim=True))
