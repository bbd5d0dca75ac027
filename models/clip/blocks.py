"""The residual attention block of CLIP in parts, and the stack of them that both towers are.

Paper: Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision,
sections 2.4 (towers) and 2.5 (initialisation). Names and shapes: openai/CLIP: clip/model.py
(docs/specs/clip-backbone.md, sections 2 and 3).

Where we differ
- Batch first; attention is one fused kernel (`scaled_dot_product_attention`) instead of products
  and a softmax.
- QuickGELU x sigmoid(1.702 x) is computed as silu(1.702 x) / 1.702 with both factors inside the
  matrix products. It is the same function up to rounding, passes over the widest tensor once
  instead of three times, and keeps one copy of it less for backward.
- Masks are True where attention may look; the published ones add -inf where it may not.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.parts.matmul import linear

Activation = Literal["quick_gelu", "gelu"]
_QUICK_GELU = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """Return x sigmoid(1.702 x), CLIP's approximation of GELU, in the shape of x."""
    return x * torch.sigmoid(_QUICK_GELU * x)


class LayerNorm(nn.LayerNorm):
    """A layer norm computed in float32; its result has the type of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis; the shape (..., W) stays."""
        return super().forward(x.float()).to(x.dtype)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Split the width among heads: (B, N, W) becomes (B, heads, N, W / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Join the heads again: (B, heads, N, W / heads) becomes (B, N, W)."""
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention with the q, k and v products stacked in one matrix."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, q: Tensor, kv: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Queries (B, N, W) look at kv (B, M, W), by default at themselves: (B, N, W)."""
        width = q.shape[-1]
        weight = self.in_proj_weight
        bias = self.in_proj_bias
        if kv is None:
            q, k, v = linear(q, weight, bias).chunk(3, -1)  # (B, N, W) each
        else:
            k, v = linear(kv, weight[width:], bias[width:]).chunk(2, -1)  # (B, M, W) each
            q = linear(q, weight[:width], bias[:width])
        q = split_heads(q, self.heads)  # (B, heads, N, W / heads)
        k = split_heads(k, self.heads)
        v = split_heads(v, self.heads)
        found = F.scaled_dot_product_attention(q, k, v, mask)
        return linear(join_heads(found), self.out_proj.weight, self.out_proj.bias)


class Mlp(nn.Module):
    """Two layers, four times as wide between them."""

    def __init__(self, width: int, activation: Activation = "quick_gelu"):
        super().__init__()
        self.activation = activation
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Run both layers; the shape (..., W) stays."""
        up = self.c_fc
        down = self.c_proj
        if self.activation == "gelu":
            wide = F.gelu(linear(x, up.weight, up.bias))  # (..., 4 W)
            return linear(wide, down.weight, down.bias)
        wide = linear(x, up.weight, up.bias, scale=_QUICK_GELU, bias_scale=_QUICK_GELU)
        wide = F.silu(wide, inplace=not wide.requires_grad)  # backward needs what silu read
        return linear(wide, down.weight, down.bias, scale=1 / _QUICK_GELU)


class Block(nn.Module):
    """x + attend(ln_1 x), then x + mlp(ln_2 x).

    The parts are public: a system may write the two lines its own way. recompute: keep only the
    input and run the block again in backward (see `set_recompute`).
    """

    def __init__(
        self, width: int, heads: int, activation: Activation = "quick_gelu", eps: float = 1e-5
    ):
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width, eps)
        self.mlp = Mlp(width, activation)
        self.ln_2 = LayerNorm(width, eps)
        self.recompute = False

    def attend(self, q: Tensor, kv: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Normed queries (B, N, W) look at normed kv (B, M, W), by default themselves: (B, N, W).

        mask: bool, True = may look, or floats to add; anything that broadcasts to (B, heads, N, M).
        Every query needs a key it may look at.
        """
        return self.attn(q, kv, mask)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run the block over tokens (B, N, W); the shape stays. `mask` as in `attend`."""
        return self._run(self._all, x, mask)

    def first(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Row 0 of `forward(x)` alone: (B, N, W) -> (B, 1, W).

        The last block needs no more if only that row is read.
        """
        return self._run(self._first, x, mask)

    def _all(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attend(self.ln_1(x), mask=mask)
        return x + self.mlp(self.ln_2(x))

    def _first(self, x: Tensor, mask: Tensor | None) -> Tensor:
        normed = self.ln_1(x)
        top = x[:, :1] + self.attend(normed[:, :1], normed, mask)  # (B, 1, W)
        return top + self.mlp(self.ln_2(top))

    def _run(
        self, part: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, mask: Tensor | None
    ) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            # nothing in a block is random
            return checkpoint(part, x, mask, use_reentrant=False, preserve_rng_state=False)
        return part(x, mask)


class Transformer(nn.Module):
    """A stack of blocks, `resblocks`, initialised as the paper's.

    eps: of the layer norms; some systems use another one in their own transformers.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        activation: Activation = "quick_gelu",
        eps: float = 1e-5,
    ):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, activation, eps) for _ in range(layers))
        std = width**-0.5
        std_of_output = width**-0.5 * (2 * layers) ** -0.5
        for block in self.resblocks:
            nn.init.normal_(block.attn.in_proj_weight, std=std)
            nn.init.normal_(block.attn.out_proj.weight, std=std_of_output)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=std_of_output)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run all blocks over tokens (B, N, W); the shape stays.

        mask: as in `Block.attend`, the same for all blocks.
        """
        for block in self.resblocks:
            x = block(x, mask)
        return x


def causal_mask(
    length: int, real: Tensor | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Return which positions each position may look at, itself and those before: bool (L, L).

    real (B, L) bool, True for tokens, hides the padding as well: (B, 1, L, L). Position 0 must be
    real.
    """
    device = device if real is None else real.device
    before = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    if real is None:
        return before
    return before & real[:, None, None, :]


def set_recompute(module: nn.Module, on: bool = True) -> None:
    """Make every CLIP block in `module` trade time for memory.

    A step then takes about a third longer and keeps one tensor per block.
    """
    for part in module.modules():
        if isinstance(part, Block):
            part.recompute = on
