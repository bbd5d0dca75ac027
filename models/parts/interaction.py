"""How encodings are compared: cosine, the generalised Jaccard similarity of concept probabilities,
token by token.

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

_TINY = 1e-12  # two empty concept vectors compare as 0, not NaN
_BLOCK_ROWS = 64


class Tokens(NamedTuple):
    """Texts as tokens, or videos as frames: vectors (n, L, D) of length 1, real (n, L) bool, True
    ones first.

    weight (n, L): of each in its text or video; 0 where not real, 1 in all.
    """

    vectors: Tensor
    real: Tensor
    weight: Tensor


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosines (n, m) of the rows of a (n, D) and b (m, D). A zero row has cosine 0 with
    everything.
    """
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Minus the squared distances (n, m) of the rows of a (n, D) and b (m, D)."""
    return 2 * a @ b.T - a.square().sum(-1)[:, None] - b.square().sum(-1)


def order(text: Tensor, video: Tensor) -> Tensor:
    """Minus how far texts (n, D) reach beyond videos (m, D), (n, m): order embeddings (Vendrov et
    al., ICLR 2016).
    """
    return -torch.linalg.vector_norm((text[:, None] - video).clamp(min=0), dim=-1)


def jaccard(p: Tensor, q: Tensor, block_bytes: int = 1 << 20) -> Tensor:
    """Sum of minima over sum of maxima, (n, m) in [0, 1], for rows of p (n, K) and q (m, K), all
    entries >= 0.

    block_bytes bounds the working memory on the CPU: 1 MB stays in the cache and is faster than
    larger blocks.
    """
    total = p.sum(-1)[:, None] + q.sum(-1)
    # |p - q| = p + q - 2 min(p, q): the L1 distance has fast kernels in both directions and needs
    # no (n, m, K) either
    needs_grad = torch.is_grad_enabled() and (p.requires_grad or q.requires_grad)
    by_distance = needs_grad or p.is_cuda
    shared = (
        (total - torch.cdist(p, q, p=1)) / 2 if by_distance else _sum_of_minima(p, q, block_bytes)
    )
    return shared / (total - shared).clamp(min=_TINY)


def _sum_of_minima(p: Tensor, q: Tensor, block_bytes: int) -> Tensor:
    """sum_k min(p_ik, q_jk), (n, m): faster and exacter than the L1 distance, but without a
    backward.
    """
    rows = max(1, block_bytes // (p.element_size() * _BLOCK_ROWS * max(1, p.shape[1])))
    shared = p.new_empty(len(p), len(q))
    for i in range(0, len(p), rows):
        for j in range(0, len(q), _BLOCK_ROWS):
            minima = torch.minimum(p[i : i + rows, None], q[j : j + _BLOCK_ROWS])
            torch.sum(minima, dim=-1, out=shared[i : i + rows, j : j + _BLOCK_ROWS])
    return shared


def token_wise(text: Tokens, video: Tokens, block_bytes: int = 0) -> Tensor:
    """The weighted token-wise similarity (n, m) of n texts and m videos: DRL's WTI, and its TI with
    equal weights.

    Every real token finds its best frame and every real frame its best token; both are averaged by
    their weights, and the two averages by halves. As published, what is padded counts as similarity
    0 and may win. Paper: Wang et al., Disentangled Representation Learning for Text-Video Retrieval
    (2022), section 3.2.

    Without gradients no (n, m, L, T) tensor is made: `block_bytes` bounds what is held besides the
    result (default:
    what fits a CPU's cache, or 256 MB on a GPU). With gradients it is kept for backward, (n L m T)
    numbers once.
    """
    kept = (text.vectors, video.vectors, text.weight, video.weight)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in kept):
        u, w = (
            side.vectors * side.real[..., None].to(side.vectors.dtype) for side in (text, video)
        )
        return _token_wise_whole(u, w, text.weight, video.weight)
    return _token_wise_blocks(
        text, video, block_bytes or ((256 if text.vectors.is_cuda else 4) << 20)
    )


def _token_wise_whole(u: Tensor, w: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    each = (
        (u.flatten(0, 1) @ w.flatten(0, 1).T).unflatten(0, u.shape[:2]).unflatten(2, w.shape[:2])
    )  # (n, L, m, T)
    # max, not amax: among equals the first gets the whole gradient, as published
    tokens, frames = each.max(3).values, each.max(1).values  # (n, L, m), (n, m, T)
    return (torch.einsum("nlm,nl->nm", tokens, alpha) + (frames * beta).sum(-1)) / 2


def _token_wise_blocks(text: Tokens, video: Tokens, block_bytes: int) -> Tensor:
    """The same, block by block; texts of equal length together, so that only real tokens are
    multiplied.
    """
    (n, longest, dim), (m, frames, _) = text.vectors.shape, video.vectors.shape
    scores = text.vectors.new_zeros(n, m)
    lengths = text.real.sum(1)
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0]
        pair_bytes = max(1, length * frames * scores.element_size())
        columns = min(m, max(_BLOCK_ROWS, math.isqrt(block_bytes // pair_bytes)))
        size = max(1, block_bytes // (pair_bytes * columns))
        for left in range(0, m, columns):
            some_videos = Tokens(*(part[left : left + columns] for part in video))
            matrix = (some_videos.vectors * some_videos.real[..., None]).transpose(
                0, 1
            )  # (T, m', D): then maxima
            matrix, weight = (
                matrix.reshape(-1, dim).T,
                some_videos.weight.T,
            )  # run over whole rows of the product
            for top in range(0, len(rows), size):
                some = rows[top : top + size]
                tokens = text.vectors[some, :length].transpose(0, 1).reshape(-1, dim)  # (l n', D)
                each = (tokens @ matrix).view(length, len(some), frames, -1)
                best_frame = torch.einsum("lnm,nl->nm", each.amax(2), text.weight[some, :length])
                best_token = each.amax(0)  # (n', T, m')
                if length < longest:
                    best_token.clamp_(min=0)
                scores[some, left : left + columns] = (
                    best_frame + (best_token * weight).sum(1)
                ) / 2
    return scores
