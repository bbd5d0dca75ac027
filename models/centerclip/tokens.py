"""What CenterCLIP does to tokens besides clustering: segments, sampling, pooling, shifts in time.

Paper: Zhao et al., CenterCLIP (SIGIR 2022), section 3.2 and tables 5 and 6; the shifts are those of
Lin et al., TSM (ICCV 2019) and Zhang et al., Token Shift Transformer (ACM MM 2021).
Published code: mzhaoshuai/CenterCLIP: modules/cluster/cluster.py (docs/specs/centerclip.md,
sections 4, 5.4 to 5.7). Everywhere tokens are those of all frames of B videos, video by video,
(B*T, 1+P, W) with the class token first. Where we differ
- Rows are segments of one video after the other; the published operators get them segment position
  by position. No result depends on it.
"""

import numpy as np
import torch
from torch import Tensor

_SHIFTED = 8  # one channel in so many comes from the next frame, and as many from the previous one


def segment_tokens(tokens: Tensor, length: int) -> Tensor:
    """The patch tokens of each `length` consecutive frames, frame by frame: (B*T, 1+P, W) -> (B*S,
    L*P, W).
    """
    return tokens[:, 1:].unflatten(0, (-1, length)).flatten(1, 2)


def segment_class(tokens: Tensor, length: int) -> Tensor:
    """The mean class token of each `length` consecutive frames: (B*T, 1+P, W) -> (B*S, 1, W)."""
    return tokens[:, :1].unflatten(0, (-1, length)).mean(1)


def members_mean(tokens: Tensor, assign: Tensor, k: int) -> Tensor:
    """The mean of the tokens (R, N, W) of each of k clusters, none of them empty: (R, K, W). assign
    (R, N).
    """
    sums = tokens.new_zeros(len(tokens), k, tokens.shape[-1])
    sums = sums.scatter_add(1, assign[..., None].expand_as(tokens), tokens)
    counts = tokens.new_zeros(len(tokens), k).scatter_add(
        1, assign, torch.ones_like(assign, dtype=tokens.dtype)
    )
    return sums / counts[..., None]


def pool_frames(tokens: Tensor, length: int) -> Tensor:
    """The mean of each `length` consecutive frames, token by token: (B*T, 1+P, W) -> (B*S, 1+P,
    W).
    """
    return tokens.unflatten(0, (-1, length)).mean(1)


def spread_ids(n: int, k: int, rng: np.random.RandomState | None = None) -> np.ndarray:
    """k of n token ids in order, int64 (k,): the middles of k equal parts, or with `rng` one drawn
    from each part.

    Parts of a draw have n // k tokens, so that the last n % k are never drawn, as published.
    Source:
    mzhaoshuai/CenterCLIP: modules/cluster/cluster_utils.py. ValueError for k beyond n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"{k} of {n} tokens")
    if rng is not None:
        size = n // k
        return np.arange(k) * size + rng.randint(size, size=k)
    tick = n / k
    return np.floor(tick / 2 + tick * np.arange(k)).astype(np.int64)


def shift_patches(tokens: Tensor, frames: int) -> Tensor:
    """Patch tokens with an eighth of their channels from the next frame and an eighth from the
    previous one.

    (B*T, 1+P, W) -> the same, `frames` = T. Beyond the ends of a video come zeros. Class tokens
    stay.
    """
    return torch.cat([tokens[:, :1], _shifted(tokens[:, 1:], frames)], 1)


def shift_class(tokens: Tensor, frames: int) -> Tensor:
    """`shift_patches` for the class token, and for nothing else."""
    return torch.cat([_shifted(tokens[:, :1], frames), tokens[:, 1:]], 1)


def _shifted(tokens: Tensor, frames: int) -> Tensor:
    x = tokens.unflatten(0, (-1, frames))  # (B, T, P, W)
    fold = x.shape[-1] // _SHIFTED
    after, before, still = x.split([fold, fold, x.shape[-1] - 2 * fold], -1)
    after = torch.cat([after[:, 1:], torch.zeros_like(after[:, :1])], 1)
    before = torch.cat([torch.zeros_like(before[:, :1]), before[:, :-1]], 1)
    return torch.cat([after, before, still], -1).flatten(0, 1)


def last_of_segments(mask: Tensor, segments: int) -> Tensor:
    """The entry of the last frame of each segment: (B, T) -> (B, S)."""
    length = mask.shape[1] // segments
    return mask[:, length - 1 :: length]
