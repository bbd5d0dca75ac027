"""The residual attention block of CLIP in parts, and the stack of them that both towers are.

Paper: Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision,
sections 2.4 (towers) and 2.5 (initialisation). Names and shapes: openai/CLIP: clip/model.py
(docs/specs/clip-backbone.md, sections 2 and 3). Where we differ
- Batch first; attention is one fused kernel (`scaled_dot_product_attention`) instead of products
  and a softmax.
- QuickGELU x sigmoid(1.702 x) is computed as silu(1.702 x) / 1.702, both factors inside the matrix
  products: the same function up to rounding, one pass over the widest tensor instead of three and
    one copy of it less kept for backward.
- Masks are True where attention may look; the published ones add -inf where it may not.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.clip.matmul import linear

Activation = Literal["quick_gelu", "gelu"]
_QUICK = 1.702  # the factor of QuickGELU


class LayerNorm(nn.LayerNorm):
    """Layer norm computed in float32 whatever the input is; the result has the type of the
    input.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class Attention(nn.Module):
    """Multi-head attention with the q, k and v products stacked in one matrix."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, q: Tensor, kv: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """(B, N, W) from queries (B, N, W) and what they look at, (B, M, W) or the queries
        themselves.
        """
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, q.shape[-1]
        if kv is None:
            parts = linear(q, weight, bias).chunk(3, -1)
        else:
            both = linear(kv, weight[width:], bias[width:]).chunk(2, -1)
            parts = (linear(q, weight[:width], bias[:width]), *both)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts
        )  # (B, heads, N or M, 64)
        found = F.scaled_dot_product_attention(q, k, v, mask)
        return linear(found.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)


class Mlp(nn.Module):
    """Two layers, four times as wide between them. (..., W) -> (..., W)."""

    def __init__(self, width: int, activation: Activation = "quick_gelu"):
        super().__init__()
        self.activation = activation
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        up, down = self.c_fc, self.c_proj
        if self.activation == "gelu":
            return linear(F.gelu(linear(x, up.weight, up.bias)), down.weight, down.bias)
        wide = linear(x, up.weight, up.bias, _QUICK, _QUICK)
        wide = F.silu(wide, inplace=not wide.requires_grad)  # backward needs what it read
        return linear(wide, down.weight, down.bias, 1 / _QUICK)


class Block(nn.Module):
    """x + attend(ln_1 x), then x + mlp(ln_2 x). The parts are public: a system may write the two
    lines its own way.

    recompute: keep only the input and run the block again in backward (see `set_recompute`).
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
        """(B, N, W) from normed queries (B, N, W) and normed keys and values (B, M, W), by default
        the queries.

        mask: bool, True = may look, or floats to add; anything that broadcasts to (B, heads, N, M).
        Every query needs a key it may look at.
        """
        return self.attn(q, kv, mask)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, W) -> (B, N, W)."""
        return self._run(self._all, x, mask)

    def first(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Row 0 of `forward(x)` alone, (B, 1, W): all of the last block that is needed if only that
        row is read.
        """
        return self._run(self._first, x, mask)

    def _all(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attend(self.ln_1(x), mask=mask)
        return x + self.mlp(self.ln_2(x))

    def _first(self, x: Tensor, mask: Tensor | None) -> Tensor:
        xn = self.ln_1(x)
        top = x[:, :1] + self.attend(xn[:, :1], xn, mask)
        return top + self.mlp(self.ln_2(top))

    def _run(
        self, part: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, mask: Tensor | None
    ) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(
                part, x, mask, use_reentrant=False, preserve_rng_state=False
            )  # nothing here is random
        return part(x, mask)


class Transformer(nn.Module):
    """A stack of blocks, `resblocks`; initialised as the paper's. eps: of the layer norms; other
    systems change it.
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
        into, out_of = width**-0.5, width**-0.5 * (2 * layers) ** -0.5
        for block in self.resblocks:
            nn.init.normal_(block.attn.in_proj_weight, std=into)
            nn.init.normal_(block.attn.out_proj.weight, std=out_of)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=out_of)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, W) -> (B, N, W); `mask` as in `Block.attend`, the same for all blocks."""
        for block in self.resblocks:
            x = block(x, mask)
        return x


def causal_mask(
    length: int, real: Tensor | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Which positions each may look at, itself and those before: bool (L, L).

    real: (B, L) bool, True for tokens: the padding is hidden as well, (B, 1, L, L). Position 0 must
    be real.
    """
    before = torch.ones(
        length, length, dtype=torch.bool, device=device if real is None else real.device
    ).tril()
    return before if real is None else before & real[:, None, None, :]


def set_recompute(module: nn.Module, on: bool = True) -> None:
    """Make every CLIP block in `module` trade time for memory: about a third more time, one tensor
    per block kept.
    """
    for part in module.modules():
        if isinstance(part, Block):
            part.recompute = on
