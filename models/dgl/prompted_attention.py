"""CLIP's blocks with prompts: further keys and values of the attention, and rows for a whole video.

Paper: Yang et al., DGL (AAAI 2024), section 3.3, global-local video attention (docs/specs/dgl.md,
section 4 and 5). As published, prompts are rows of the sequence that every block computes and the
next one overwrites. Nothing of them is read but their keys and values, so here they are keys and
values, made once for all texts and videos. And keys and values of a row are projected once, where
the published code does it anew for each attention that looks at the row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.clip.blocks import Block
from models.clip.matmul import linear


def keys_of(block: Block, prompts: Tensor) -> Tensor:
    """Keys and values of prompts (..., W) in front of a block: (..., 2 W)."""
    width = prompts.shape[-1]
    return linear(
        block.ln_1(prompts), block.attn.in_proj_weight[width:], block.attn.in_proj_bias[width:]
    )


def read_words(
    block: Block, x: Tensor, prompts: Tensor | None, ends: Tensor | None = None
) -> Tensor:
    """Texts (B, S, W), prompts (k, 2 W) behind their first token -> (B, S, W); of the rows `ends`
    (B,) alone (B, 1, W).

    A row sees itself, the rows before it and, but for the first, the prompts. prompts None: plain
    CLIP.
    """
    mask = _order(x.shape[1], 0 if prompts is None else len(prompts), x.device)  # (S, k + S)
    if ends is None:
        q, kv = _projected(block, x)
    else:
        rows = torch.arange(len(x), device=x.device)[:, None], ends[:, None]
        (q, kv), x, mask = _projected(block, x, rows), x[rows], mask[ends][:, None, None]
    if prompts is not None:
        kv = torch.cat([prompts.expand(len(x), -1, -1), kv], 1)
    return _rest(block, x, _attend(block, q, kv, mask))


def global_local(
    block: Block,
    g: Tensor,
    f: Tensor,
    prompts: Tensor | None,
    n_global: int | None = None,
    n_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Global rows g (B, G, W) and frames f (B, T, n, W) behind a block; prompts (T or 1, P, 2 W) of
    each frame.

    Tokens of a frame look at their frame, its prompts and the global rows; global rows at
    everything in the video. n_global, n_tokens: only the first rows of g and of every frame are
    wanted: all that the last block is read for.
    """
    gq, fq, kv, own = _keys(block, g, f, prompts, n_global, n_tokens)
    g, f = g[:, :n_global], f[:, :, :n_tokens]
    if g.shape[1]:
        g = _rest(block, g, _attend(block, gq, kv.flatten(1, 2), own))
    if f.shape[2]:
        f = _rest(block, f, _attend(block, fq.flatten(0, 1), kv.flatten(0, 1)).view(f.shape))
    return g, f


def attention_weights(
    block: Block, g: Tensor, f: Tensor, rows: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Who looks at which patch in a block: global rows (B, G, T, N), class tokens (B, T, N),
    prompts (B, T, P, N).

    rows: the prompts themselves, (T or 1, P, W). Means over heads of the softmax over all keys;
    only the columns of the N patches are returned, so they sum to less than 1.
    """
    prompts, n = None if rows is None else keys_of(block, rows), f.shape[2]
    gq, fq, kv, own = _keys(block, g, f, prompts)
    of_global = _weights(block, gq, kv.flatten(1, 2), own).unflatten(-1, kv.shape[1:3])[
        ..., 1 - n :
    ]
    of_class = _weights(block, fq[:, :, :1].flatten(0, 1), kv.flatten(0, 1))[
        :, 0, 1 - n :
    ].unflatten(0, f.shape[:2])
    if rows is None:
        return of_global, of_class, None
    width = rows.shape[-1]
    q = linear(block.ln_1(rows), block.attn.in_proj_weight[:width], block.attn.in_proj_bias[:width])
    q = q.expand(*f.shape[:2], -1, -1).flatten(0, 1)
    return (
        of_global,
        of_class,
        _weights(block, q, kv.flatten(0, 1))[..., 1 - n :].unflatten(0, f.shape[:2]),
    )


def _keys(
    block: Block,
    g: Tensor,
    f: Tensor,
    prompts: Tensor | None,
    n_global: int | None = None,
    n_tokens: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries of g and f; keys and values of each frame (B, T, G + P + n, 2 W), first the global
    rows; the mask (1, K).

    The mask is for who looks at all frames at once: it must see the global rows once, not once per
    frame.
    """
    (batch, n_frames), n_rows = f.shape[:2], g.shape[1]
    gq, gkv = _projected(block, g, None if n_global is None else (slice(None), slice(n_global)))
    fq, fkv = _projected(
        block, f, None if n_tokens is None else (slice(None), slice(None), slice(n_tokens))
    )
    parts = [gkv[:, None].expand(-1, n_frames, -1, -1), fkv]
    if prompts is not None:
        parts.insert(1, prompts.expand(batch, n_frames, -1, -1))
    kv = torch.cat(parts, 2)
    own = torch.ones(kv.shape[1:3], dtype=torch.bool, device=f.device)
    own[1:, :n_rows] = False
    return gq, fq, kv, own.flatten()[None]


def _projected(block: Block, x: Tensor, rows: tuple | None = None) -> tuple[Tensor, Tensor]:
    """Queries (of x[rows] only, if given) and keys and values (2 W) of x (..., W).

    Two products: out of one, the queries that backward keeps would keep all of it, beside the copy
    of keys and values.
    """
    weight, bias, width = block.attn.in_proj_weight, block.attn.in_proj_bias, x.shape[-1]
    x = block.ln_1(x)
    q = linear(x if rows is None else x[rows], weight[:width], bias[:width])
    return q, linear(x, weight[width:], bias[width:])


def _heads(block: Block, q: Tensor, kv: Tensor) -> list[Tensor]:
    return [
        part.unflatten(-1, (block.attn.heads, -1)).transpose(1, 2) for part in (q, *kv.chunk(2, -1))
    ]


def _attend(block: Block, q: Tensor, kv: Tensor, mask: Tensor | None = None) -> Tensor:
    """q (B, N, W), kv (B, M, 2 W), mask True = may look -> (B, N, W)."""
    found = F.scaled_dot_product_attention(*_heads(block, q, kv), mask)
    return linear(
        found.transpose(1, 2).flatten(2), block.attn.out_proj.weight, block.attn.out_proj.bias
    )


def _weights(block: Block, q: Tensor, kv: Tensor, mask: Tensor | None = None) -> Tensor:
    """The weights of `_attend`, (B, N, M), mean over heads."""
    q, k, _ = _heads(block, q, kv)
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return (
        (logits if mask is None else logits.masked_fill(~mask, float("-inf"))).softmax(-1).mean(1)
    )


def _rest(block: Block, x: Tensor, attended: Tensor) -> Tensor:
    x = x + attended
    return x + block.mlp(block.ln_2(x))


def _order(length: int, n_prompts: int, device: torch.device) -> Tensor:
    """(S, k + S): which of k prompts and S words each word sees; the prompts stand behind the first
    word.
    """
    mask = torch.ones(length, n_prompts + length, dtype=torch.bool, device=device).tril(n_prompts)
    mask[0, :n_prompts] = False
    return mask
