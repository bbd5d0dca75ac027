"""CLIP's blocks with prompts: further keys and values for attention, and rows for whole videos.

Paper: Yang et al., DGL (AAAI 2024), section 3.3, global-local video attention (docs/specs/dgl.md,
section 4 and 5). In the published code prompts are rows of the sequence that every block computes
and the next one overwrites. Only their keys and values are ever read, so here they are keys and
values, made once for all texts and videos. Keys and values of a row are projected once; the
published code projects them again for each attention that looks at the row.

Names: `video` (B, G, W) are the rows of the global prompts, `frames` (B, T, n, W) the tokens of
each frame, the class token first.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.clip.blocks import Block, join_heads, split_heads
from models.parts.matmul import linear


class Keep(NamedTuple):
    """How many rows behind a block are needed: of `video`, and of each frame.

    None stands for all of them.
    """

    n_video: int | None = None
    n_tokens: int | None = None


ALL = Keep()


class AttentionWeights(NamedTuple):
    """Who looks at which patch: video (B, G, T, N), classes (B, T, N), prompts (B, T, P, N)."""

    video: Tensor
    classes: Tensor
    prompts: Tensor | None


def keys_of(block: Block, prompts: Tensor) -> Tensor:
    """Prompts (..., W) in front of a block -> their keys and values, (..., 2 W)."""
    width = prompts.shape[-1]
    weight = block.attn.in_proj_weight[width:]
    bias = block.attn.in_proj_bias[width:]
    return linear(block.ln_1(prompts), weight, bias)


def read_words(
    block: Block, x: Tensor, prompts: Tensor | None, ends: Tensor | None = None
) -> Tensor:
    """Texts (B, S, W) -> behind the block (B, S, W), or of the rows `ends` (B,) alone (B, 1, W).

    prompts: keys and values (k, 2 W) behind the first token; without them it is plain CLIP. A row
    sees itself, the rows before it and, except for the first, the prompts.
    """
    n_prompts = 0 if prompts is None else len(prompts)
    mask = _causal_mask(x.shape[1], n_prompts, x.device)  # (S, k + S)
    normed = block.ln_1(x)
    if ends is None:
        q = _queries(block, normed)  # (B, S, W)
    else:
        texts = torch.arange(len(x), device=x.device)[:, None]
        rows = (texts, ends[:, None])
        q = _queries(block, normed[rows])  # (B, 1, W)
        x = x[rows]
        mask = mask[ends][:, None, None]  # (B, 1, 1, k + S)
    kv = _keys_and_values(block, normed)  # (B, S, 2 W)
    if prompts is not None:
        kv = torch.cat([prompts.expand(len(x), -1, -1), kv], 1)  # (B, k + S, 2 W)
    return _finish(block, x, _attend(block, q, kv, mask))


def global_local(
    block: Block, video: Tensor, frames: Tensor, prompts: Tensor | None, keep: Keep = ALL
) -> tuple[Tensor, Tensor]:
    """Video (B, G, W) and frames (B, T, n, W) -> the same behind a block, as far as `keep` says.

    prompts: keys and values (T or 1, P, 2 W) of each frame. Tokens of a frame look at their frame,
    its prompts and the global rows; global rows look at everything in the video.
    """
    projected = _project(block, video, frames, prompts, keep)
    video = video[:, : keep.n_video]
    frames = frames[:, :, : keep.n_tokens]
    if video.shape[1]:
        kv = projected.kv.flatten(1, 2)  # (B, T (G + P + n), 2 W)
        found = _attend(block, projected.video_q, kv, projected.once)
        video = _finish(block, video, found)
    if frames.shape[2]:
        q = projected.frame_q.flatten(0, 1)  # (B T, n, W)
        kv = projected.kv.flatten(0, 1)  # (B T, G + P + n, 2 W)
        found = _attend(block, q, kv).view(frames.shape)
        frames = _finish(block, frames, found)
    return video, frames


def attention_weights(
    block: Block, video: Tensor, frames: Tensor, prompts: Tensor | None
) -> AttentionWeights:
    """Video (B, G, W), frames (B, T, 1+N, W), prompts (T or 1, P, W) -> who looks at which patch.

    The prompts are rows here, not keys and values. Weights are means over heads of the softmax over
    all keys; only the columns of the N patches are returned, so they sum to less than 1.
    """
    n_patches = frames.shape[2] - 1
    batch = frames.shape[:2]
    keys = None if prompts is None else keys_of(block, prompts)
    projected = _project(block, video, frames, keys)
    kv = projected.kv.flatten(0, 1)  # (B T, G + P + n, 2 W)
    class_q = projected.frame_q[:, :, :1].flatten(0, 1)  # (B T, 1, W)
    of_video = _weigh(block, projected.video_q, projected.kv.flatten(1, 2), projected.once)
    of_video = of_video.unflatten(-1, projected.kv.shape[1:3])  # (B, G, T, G + P + n)
    of_classes = _weigh(block, class_q, kv)[:, 0]  # (B T, G + P + n)
    of_prompts = None
    if prompts is not None:
        q = _queries(block, block.ln_1(prompts))  # (T or 1, P, W)
        q = q.expand(*batch, -1, -1).flatten(0, 1)  # (B T, P, W)
        of_prompts = _weigh(block, q, kv)[..., -n_patches:].unflatten(0, batch)
    return AttentionWeights(
        video=of_video[..., -n_patches:],
        classes=of_classes[..., -n_patches:].unflatten(0, batch),
        prompts=of_prompts,
    )


class _Projected(NamedTuple):
    """Queries (B, G, W) and (B, T, n, W), keys and values (B, T, G + P + n, 2 W) of each frame.

    once (1, T (G + P + n)): the mask for who looks at all frames; it shows the global rows, which
    are among the keys of every frame, only once.
    """

    video_q: Tensor
    frame_q: Tensor
    kv: Tensor
    once: Tensor


def _project(
    block: Block, video: Tensor, frames: Tensor, prompts: Tensor | None, keep: Keep = ALL
) -> _Projected:
    batch, n_frames = frames.shape[:2]
    n_video = video.shape[1]
    video = block.ln_1(video)
    video_q = _queries(block, video[:, : keep.n_video])
    video_kv = _keys_and_values(block, video)  # (B, G, 2 W)
    frames = block.ln_1(frames)
    frame_q = _queries(block, frames[:, :, : keep.n_tokens])
    frame_kv = _keys_and_values(block, frames)  # (B, T, n, 2 W)
    parts = [video_kv[:, None].expand(-1, n_frames, -1, -1)]
    if prompts is not None:
        parts.append(prompts.expand(batch, n_frames, -1, -1))
    parts.append(frame_kv)
    kv = torch.cat(parts, 2)  # (B, T, G + P + n, 2 W)
    once = torch.ones(kv.shape[1:3], dtype=torch.bool, device=kv.device)
    once[1:, :n_video] = False
    return _Projected(video_q=video_q, frame_q=frame_q, kv=kv, once=once.flatten()[None])


# Two products: if queries, keys and values came from one, the queries that backward keeps would
# keep all of it alive, beside the copy of keys and values.


def _queries(block: Block, normed: Tensor) -> Tensor:
    """Project normed tokens (..., W) to queries (..., W)."""
    width = normed.shape[-1]
    return linear(normed, block.attn.in_proj_weight[:width], block.attn.in_proj_bias[:width])


def _keys_and_values(block: Block, normed: Tensor) -> Tensor:
    """Project normed tokens (..., W) to keys and values (..., 2 W)."""
    width = normed.shape[-1]
    return linear(normed, block.attn.in_proj_weight[width:], block.attn.in_proj_bias[width:])


def _attend(block: Block, q: Tensor, kv: Tensor, mask: Tensor | None = None) -> Tensor:
    """q (B, N, W), kv (B, M, 2 W), mask True = may look -> (B, N, W)."""
    attention = block.attn
    k, v = kv.chunk(2, -1)
    q = split_heads(q, attention.heads)  # (B, heads, N, W / heads)
    k = split_heads(k, attention.heads)
    v = split_heads(v, attention.heads)
    found = F.scaled_dot_product_attention(q, k, v, mask)
    return linear(join_heads(found), attention.out_proj.weight, attention.out_proj.bias)


def _weigh(block: Block, q: Tensor, kv: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the weights of `_attend`, (B, N, M), mean over heads."""
    k, _ = kv.chunk(2, -1)
    q = split_heads(q, block.attn.heads)  # (B, heads, N, W / heads)
    k = split_heads(k, block.attn.heads)
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (B, heads, N, M)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    return logits.softmax(-1).mean(1)


def _finish(block: Block, x: Tensor, attended: Tensor) -> Tensor:
    x = x + attended
    return x + block.mlp(block.ln_2(x))


def _causal_mask(length: int, n_prompts: int, device: torch.device) -> Tensor:
    """Return which of k prompts and S words each word sees, (S, k + S).

    The prompts stand behind the first word.
    """
    mask = torch.ones(length, n_prompts + length, dtype=torch.bool, device=device).tril(n_prompts)
    mask[0, :n_prompts] = False
    return mask
