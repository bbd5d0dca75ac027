"""What CenterCLIP does to tokens besides clustering: segments, sampling, pooling, shifts in time.

Paper: Zhao et al., CenterCLIP (SIGIR 2022), section 3.2 and tables 5 and 6; the shifts are those of
Lin et al., TSM (ICCV 2019) and Zhang et al., Token Shift Transformer (ACM MM 2021). Published code:
mzhaoshuai/CenterCLIP: modules/cluster/cluster.py (docs/specs/centerclip.md, sections 4, 5.4 to
5.7). Tokens are always those of all frames of B videos, video by video, (B*T, 1+P, W), with the
class token first.

Where we differ
- Rows are segments of one video after the other; the published operators get them segment position
  by position. No result depends on it.
"""

import numpy as np
import torch
from torch import Tensor

_SHIFTED = 8  # an eighth of the channels comes from the next frame, and one from the previous


def segment_tokens(tokens: Tensor, length: int) -> Tensor:
    """Return the patch tokens of each `length` consecutive frames, frame by frame.

    (B*T, 1+P, W) -> (B*S, L*P, W).
    """
    return tokens[:, 1:].unflatten(0, (-1, length)).flatten(1, 2)


def segment_class(tokens: Tensor, length: int) -> Tensor:
    """Return the mean class token of each `length` consecutive frames.

    (B*T, 1+P, W) -> (B*S, 1, W).
    """
    return tokens[:, :1].unflatten(0, (-1, length)).mean(1)


def members_mean(tokens: Tensor, assign: Tensor, k: int) -> Tensor:
    """Return the mean of the members of each of k clusters, none of which is empty.

    tokens (R, N, W), assign (R, N) -> (R, K, W).
    """
    index = assign[..., None].expand_as(tokens)
    sums = tokens.new_zeros(len(tokens), k, tokens.shape[-1])
    sums = sums.scatter_add(1, index, tokens)
    ones = torch.ones_like(assign, dtype=tokens.dtype)
    counts = tokens.new_zeros(len(tokens), k).scatter_add(1, assign, ones)  # (R, K)
    return sums / counts[..., None]


def pool_frames(tokens: Tensor, length: int) -> Tensor:
    """Return the mean of each `length` consecutive frames, token by token.

    (B*T, 1+P, W) -> (B*S, 1+P, W).
    """
    return tokens.unflatten(0, (-1, length)).mean(1)


def spread_ids(n: int, k: int, rng: np.random.RandomState | None = None) -> np.ndarray:
    """Return k of n token ids in order, int64 (k,): the middles of k equal parts.

    With `rng` one is drawn from each part. Parts of a draw have n // k tokens, so that the last n %
    k are never drawn, as published. Source: mzhaoshuai/CenterCLIP:
    modules/cluster/cluster_utils.py.

    Raises ValueError for k beyond n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"{k} of {n} tokens")
    if rng is not None:
        size = n // k
        return np.arange(k) * size + rng.randint(size, size=k)
    tick = n / k
    return np.floor(tick / 2 + tick * np.arange(k)).astype(np.int64)


def shift_patches(tokens: Tensor, frames: int) -> Tensor:
    """Exchange channels of patch tokens in time: (B*T, 1+P, W) -> the same, `frames` = T.

    An eighth of the channels comes from the next frame and an eighth from the previous one; beyond
    the ends of a video come zeros. Class tokens stay.
    """
    return torch.cat([tokens[:, :1], _shift(tokens[:, 1:], frames)], 1)


def shift_class(tokens: Tensor, frames: int) -> Tensor:
    """Do what `shift_patches` does to the class token alone: (B*T, 1+P, W) -> the same."""
    return torch.cat([_shift(tokens[:, :1], frames), tokens[:, 1:]], 1)


def _shift(tokens: Tensor, frames: int) -> Tensor:
    x = tokens.unflatten(0, (-1, frames))  # (B, T, P, W)
    width = x.shape[-1]
    fold = width // _SHIFTED
    after, before, rest = x.split([fold, fold, width - 2 * fold], -1)
    nothing = torch.zeros_like(after[:, :1])  # (B, 1, P, fold)
    after = torch.cat([after[:, 1:], nothing], 1)
    before = torch.cat([nothing, before[:, :-1]], 1)
    return torch.cat([after, before, rest], -1).flatten(0, 1)


def last_of_segments(mask: Tensor, segments: int) -> Tensor:
    """Return the entry of the last frame of each segment: (B, T) -> (B, S)."""
    length = mask.shape[1] // segments
    return mask[:, length - 1 :: length]
