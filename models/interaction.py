"""How encodings are compared: cosine, and the generalised Jaccard similarity of concept probabilities.

Papers: Dual Encoding (Dong et al., TPAMI 2021, section 3.3.2, Jaccard). Every entry depends on its own pair only, so
scores may be computed block by block.

Published code (danieljf24/hybrid_space, dongYoun2/dual-encoding-system: measure.py) holds (n, m, K) minima and maxima
in memory. Here sum max = sum p + sum q - sum min, and the sum of minima needs no such tensor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_TINY = 1e-12  # two empty concept vectors compare as 0, not NaN
_BLOCK_ROWS = 64


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosines (n, m) of the rows of a (n, D) and b (m, D). A zero row has cosine 0 with everything."""
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Minus the squared distances (n, m) of the rows of a (n, D) and b (m, D)."""
    return 2 * a @ b.T - a.square().sum(-1)[:, None] - b.square().sum(-1)


def order(text: Tensor, video: Tensor) -> Tensor:
    """Minus how far texts (n, D) reach beyond videos (m, D), (n, m): order embeddings (Vendrov et al., ICLR 2016)."""
    return -torch.linalg.vector_norm((text[:, None] - video).clamp(min=0), dim=-1)


def jaccard(p: Tensor, q: Tensor, block_bytes: int = 1 << 20) -> Tensor:
    """Sum of minima over sum of maxima, (n, m) in [0, 1], for rows of p (n, K) and q (m, K), all entries >= 0.

    block_bytes bounds the working memory on the CPU: 1 MB stays in the cache and is faster than larger blocks.
    """
    total = p.sum(-1)[:, None] + q.sum(-1)
    # |p - q| = p + q - 2 min(p, q): the L1 distance has fast kernels in both directions and needs no (n, m, K) either
    needs_grad = torch.is_grad_enabled() and (p.requires_grad or q.requires_grad)
    by_distance = needs_grad or p.is_cuda
    shared = (total - torch.cdist(p, q, p=1)) / 2 if by_distance else _sum_of_minima(p, q, block_bytes)
    return shared / (total - shared).clamp(min=_TINY)


def _sum_of_minima(p: Tensor, q: Tensor, block_bytes: int) -> Tensor:
    """sum_k min(p_ik, q_jk), (n, m): faster and exacter than the L1 distance, but without a backward."""
    rows = max(1, block_bytes // (p.element_size() * _BLOCK_ROWS * max(1, p.shape[1])))
    shared = p.new_empty(len(p), len(q))
    for i in range(0, len(p), rows):
        for j in range(0, len(q), _BLOCK_ROWS):
            minima = torch.minimum(p[i : i + rows, None], q[j : j + _BLOCK_ROWS])
            torch.sum(minima, dim=-1, out=shared[i : i + rows, j : j + _BLOCK_ROWS])
    return shared
