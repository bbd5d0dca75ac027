"""How encodings are compared: by cosine, distance, order, Jaccard similarity, token by token.

Papers: Dual Encoding (Dong et al., TPAMI 2021, section 3.3.2, Jaccard); DRL (Wang et al. 2022,
token-wise). Every entry depends on its own pair only, so scores may be computed block by block.

Published code (danieljf24/hybrid_space, dongYoun2/dual-encoding-system: measure.py) holds (n, m, K)
minima and maxima in memory. Here sum max = sum p + sum q - sum min, and the sum of minima needs no
such tensor.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.parts.matmul import linear

_TINY = 1e-12  # two empty concept vectors compare as 0, not NaN
_BLOCK_ROWS = 64
_CPU_BLOCK_BYTES = 4 << 20  # fits the cache
_GPU_BLOCK_BYTES = 256 << 20


class Tokens(NamedTuple):
    """Texts as tokens, or videos as frames: vectors (n, L, D) of length 1, real (n, L) bool.

    Real ones come first. weight (n, L): of each in its text or video; 0 where not real, sum 1.
    """

    vectors: Tensor
    real: Tensor
    weight: Tensor


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosines (n, m) of the rows of a (n, D) and b (m, D).

    A zero row has cosine 0 with everything.
    """
    return linear(F.normalize(a, dim=-1), F.normalize(b, dim=-1))


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Return minus the squared distances (n, m) of the rows of a (n, D) and b (m, D)."""
    return 2 * a @ b.T - a.square().sum(-1)[:, None] - b.square().sum(-1)


def euclidean_plain(a: Tensor, b: Tensor) -> Tensor:
    """Return minus the distances (n, m) of the rows of a (n, D) and b (m, D), each pair by itself.

    Subtracting first keeps small distances exact, where the root of a rounded square would not.
    """
    return -torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the products (n, m) of the rows of a (n, D) and b (m, D) as they are."""
    return linear(a, b)


def order(text: Tensor, video: Tensor) -> Tensor:
    """Return minus how far texts (n, D) reach beyond videos (m, D): (n, m).

    Paper: order embeddings (Vendrov et al., ICLR 2016).
    """
    beyond = (text[:, None] - video).clamp(min=0)  # (n, m, D)
    return -torch.linalg.vector_norm(beyond, dim=-1)


def jaccard(p: Tensor, q: Tensor, block_bytes: int = 1 << 20) -> Tensor:
    """Return the sum of minima over the sum of maxima of rows p (n, K) and q (m, K): (n, m).

    All entries must be >= 0; results lie in [0, 1]. block_bytes bounds the working memory on the
    CPU: 1 MB stays in the cache and is faster than larger blocks.
    """
    total = p.sum(-1)[:, None] + q.sum(-1)  # (n, m)
    needs_grad = torch.is_grad_enabled() and (p.requires_grad or q.requires_grad)
    if needs_grad or p.is_cuda:
        # |p - q| = p + q - 2 min(p, q): the L1 distance has fast kernels in both directions and
        # needs no (n, m, K) either
        minima = (total - torch.cdist(p, q, p=1)) / 2
    else:
        minima = _sum_of_minima(p, q, block_bytes)
    return minima / (total - minima).clamp(min=_TINY)


def _sum_of_minima(p: Tensor, q: Tensor, block_bytes: int) -> Tensor:
    """sum_k min(p_ik, q_jk), (n, m).

    Faster and more accurate than through the L1 distance, but without a backward.
    """
    rows = max(1, block_bytes // (p.element_size() * _BLOCK_ROWS * max(1, p.shape[1])))
    sums = p.new_empty(len(p), len(q))
    for top in range(0, len(p), rows):
        some_p = p[top : top + rows, None]  # (rows, 1, K)
        for left in range(0, len(q), _BLOCK_ROWS):
            some_q = q[left : left + _BLOCK_ROWS]
            minima = torch.minimum(some_p, some_q)  # (rows, 64, K)
            torch.sum(minima, dim=-1, out=sums[top : top + rows, left : left + _BLOCK_ROWS])
    return sums


def token_wise(
    text: Tokens, video: Tokens, block_bytes: int = 0, *, padding_counts: bool = True
) -> Tensor:
    """Return the weighted token-wise similarity (n, m) of n texts and m videos.

    This is DRL's WTI, and its TI with equal weights. Every real token finds its best frame and
    every real frame its best token; both are averaged by their weights, and the score is the mean
    of the two averages. padding_counts: as published, padding has similarity 0 and may win a
    maximum; else only real tokens and frames are looked at. Paper: Wang et al., Disentangled
    Representation Learning for Text-Video Retrieval (2022), section 3.2.

    Without gradients no (n, m, L, T) tensor is made: `block_bytes` bounds what is held besides the
    result (default: what fits a CPU's cache, or 256 MB on a GPU). With gradients it is kept for
    backward, (n L m T) numbers once.
    """
    tensors = (text.vectors, video.vectors, text.weight, video.weight)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _token_wise_whole(text, video, padding_counts)
    if not block_bytes:
        block_bytes = _GPU_BLOCK_BYTES if text.vectors.is_cuda else _CPU_BLOCK_BYTES
    return _token_wise_blocks(text, video, block_bytes, padding_counts)


def _token_wise_whole(text: Tokens, video: Tokens, padding_counts: bool) -> Tensor:
    words = text.vectors * text.real[..., None].to(text.vectors.dtype)  # (n, L, D), padding is 0
    frames = video.vectors * video.real[..., None].to(video.vectors.dtype)  # (m, T, D)
    each = linear(words.flatten(0, 1), frames.flatten(0, 1))  # (n L, m T)
    each = each.unflatten(0, words.shape[:2]).unflatten(2, frames.shape[:2])  # (n, L, m, T)
    # max, not amax: among equals the first gets the whole gradient, as published
    best_frame = without(each, video.real, padding_counts).max(3).values  # (n, L, m)
    real_words = text.real[:, :, None, None]
    best_word = without(each, real_words, padding_counts).max(1).values  # (n, m, T)
    t2v = torch.einsum("nlm,nl->nm", best_frame, text.weight)
    v2t = (best_word * video.weight).sum(-1)  # (n, m)
    return (t2v + v2t) / 2


def without(each: Tensor, real: Tensor, padding_counts: bool) -> Tensor:
    """Return the similarities `each` (..., L, T), with -inf for padding unless it counts.

    real: bool, broadcast to the shape of `each`; True = real.
    """
    return each if padding_counts else each.masked_fill(~real, float("-inf"))


def _token_wise_blocks(
    text: Tokens, video: Tokens, block_bytes: int, padding_counts: bool
) -> Tensor:
    """The same, block by block.

    Texts of equal length are compared together, so that only real tokens are multiplied. Tokens and
    frames come first in the products: then maxima run over whole rows.
    """
    n, longest, dim = text.vectors.shape
    m, n_frames, _ = video.vectors.shape
    scores = text.vectors.new_zeros(n, m)
    lengths = text.real.sum(1)  # (n,)
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        pair_bytes = max(1, length * n_frames * scores.element_size())
        n_columns = min(m, max(_BLOCK_ROWS, math.isqrt(block_bytes // pair_bytes)))
        n_rows = max(1, block_bytes // (pair_bytes * n_columns))
        for left in range(0, m, n_columns):
            columns = slice(left, left + n_columns)
            frames = video.vectors[columns] * video.real[columns, :, None]  # (m', T, D)
            frames = frames.transpose(0, 1).reshape(-1, dim)  # (T m', D)
            frame_weight = video.weight[columns].T  # (T, m')
            for top in range(0, len(rows), n_rows):
                some = rows[top : top + n_rows]
                words = text.vectors[some, :length]  # (n', l, D)
                words = words.transpose(0, 1).reshape(-1, dim)  # (l n', D)
                each = linear(words, frames)  # (l n', T m')
                each = each.view(length, len(some), n_frames, -1)  # (l, n', T, m')
                best_word = each.amax(0)  # (n', T, m')
                if padding_counts and length < longest:
                    best_word.clamp_(min=0)  # padding words are 0
                real_frames = video.real[columns].T  # (T, m')
                best_frame = without(each, real_frames, padding_counts).amax(2)  # (l, n', m')
                t2v = torch.einsum("lnm,nl->nm", best_frame, text.weight[some, :length])
                v2t = (best_word * frame_weight).sum(1)  # (n', m')
                scores[some, columns] = (t2v + v2t) / 2
    return scores
