"""k-medoids++ on many small sets of tokens at once; the result depends on nothing but the tokens.

Paper: Zhao et al., CenterCLIP (SIGIR 2022), section 3.2.1 and algorithm 1; its start is KKZ
(Katsavounidis 1994). Published code: mzhaoshuai/CenterCLIP: modules/cluster/fast_kmeans.py
(docs/specs/centerclip.md, sections 5.1 and 5.2).

Where we differ
- Distances are exactly symmetric with a zero diagonal, and values that are equal up to rounding go
  to the lowest index. The published float32 distances are neither, so that rounding decides which
  token of a pair becomes the medoid, and the medoids change with the batch size.
- A row stops when its own medoids rest; the published test is a mean over the rows that share a
  chunk.
- Costs are sums over the same cluster in an N x N matrix, not in K masked copies of it.
- With `pre_norm` the first medoid is the token that was longest before; afterwards all lengths are
  1 up to rounding.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from models.parts.eager import eager

Metric = Literal["euclidean", "cosine"]

_TINY = 1e-6  # added to the lengths that tokens are divided by, as published
# of the squared lengths: closer than float32 can tell apart, so the distance is 0
_SAME_POINT = 1e-13
# of the largest value: float64 rounding is far below, differences that mean anything far above
_TIE = 1e-8
_CHUNK_BYTES = 64 << 20


class Clusters(NamedTuple):
    """medoids (R, K) int64: token ids, ascending. assign (R, N) int64: which of K is nearest."""

    medoids: Tensor
    assign: Tensor


def join_rows(parts: list[Clusters]) -> Clusters:
    """Return the rows of all parts, (R, K) and (R, N), in their order."""
    return Clusters(
        medoids=torch.cat([part.medoids for part in parts]),
        assign=torch.cat([part.assign for part in parts]),
    )


@eager
@torch.no_grad()
def kmedoids(
    tokens: Tensor,
    k: int,
    *,
    metric: Metric = "euclidean",
    p: float = 2.0,
    max_iter: int = 100,
    tol: float = 1e-5,
    pre_norm: bool = False,
    lengths: Tensor | None = None,
    chunk_bytes: int = _CHUNK_BYTES,
) -> Clusters:
    """Return K medoids of each of R sets of N tokens (R, N, D), 1 <= k <= N.

    No gradient; autocast does not matter. p: of the Minkowski distance (metric euclidean). tol: a
    row stops when its medoids together moved less, in L2. pre_norm: cluster tokens of length 1.
    lengths (R, N): the longest token is the first medoid, by default of the L2 norm. chunk_bytes
    bounds the working memory, O(N^2 + N D) per row, and changes nothing else.

    Raises ValueError for k beyond N.
    """
    n_rows, n, dim = tokens.shape
    if not 1 <= k <= n:
        raise ValueError(f"{k} medoids of {n} tokens")
    # other exponents cost a pass over all pairs: float32 tokens are compared in float32, which
    # takes half the time
    is_slow = metric == "euclidean" and p != 2
    in_float32 = is_slow and tokens.dtype != torch.float64
    chunk = max(1, chunk_bytes // (8 * n * (4 * n + 2 * dim)))
    parts = []
    with torch.autocast(tokens.device.type, enabled=False):
        for start in range(0, n_rows, chunk):
            rows = slice(start, start + chunk)
            x = tokens[rows].double()  # (r, N, D)
            norms = x.norm(dim=-1)  # (r, N)
            longest = norms if lengths is None else lengths[rows].double()
            if pre_norm:
                x = x / (norms + _TINY)[..., None]
            d = distances(x.float() if in_float32 else x, metric, p)  # (r, N, N)
            first = _first_max(longest)  # (r,)
            parts.append(_cluster(x, d, first, k=k, max_iter=max_iter, tol=tol))
    return join_rows(parts)


def distances(x: Tensor, metric: Metric = "euclidean", p: float = 2.0) -> Tensor:
    """Return all distances within each row of tokens (R, N, D): (R, N, N) float64.

    They are exactly symmetric with a zero diagonal, and computed in float64; with exponents p other
    than 2 as exactly as the tokens are given. cosine: 1 - <a, b> / ((|a| + 1e-6)(|b| + 1e-6)).
    """
    if metric == "cosine":
        x = x.double()
        x = x / (x.norm(dim=-1, keepdim=True) + _TINY)
        d = 1 - torch.bmm(x, x.transpose(1, 2))
        d = (d + d.transpose(1, 2)) / 2
        d.diagonal(dim1=1, dim2=2).zero_()
        return d
    if p == 2:
        return squared_distances(x).sqrt_()
    return torch.cdist(x, x, p=p).double()  # pair by pair, so symmetric


def squared_distances(x: Tensor) -> Tensor:
    """Return squared L2 distances within each row of tokens (R, N, D): (R, N, N) float64.

    They come from inner products: 100 times faster than subtracting pair by pair, and in float64
    still more accurate than that in float32. Tokens that float32 cannot tell apart have distance 0.
    """
    x = x.double()
    x = x - x.mean(1, keepdim=True)  # the common part would only cost digits
    inner = torch.bmm(x, x.transpose(1, 2))
    inner = inner + inner.transpose(1, 2)  # twice the inner products, exactly symmetric
    half = inner.diagonal(dim1=1, dim2=2) / 2  # (R, N), squared lengths
    scale = half[:, :, None] + half[:, None, :]
    d = (scale - inner).clamp_(min=0)
    return d.masked_fill_(d <= _SAME_POINT * scale, 0)


def _cluster(x: Tensor, d: Tensor, first: Tensor, k: int, max_iter: int, tol: float) -> Clusters:
    """Start, rounds of assignment and update, sort; rows are independent of each other."""
    tie = _TIE * d.amax((1, 2))[:, None]  # (R, 1)
    medoids = _start(d, first, k, tie)  # (R, K)
    active = torch.ones(len(x), 1, dtype=torch.bool, device=x.device)
    for _ in range(max_iter):
        assign = _assign(d, medoids, tie)  # (R, N)
        new = torch.where(active, _update(d, assign, k, tie), medoids)
        moved = _distance_moved(x, medoids, new)  # (R, 1)
        medoids = new
        active = (moved >= tol) & (moved > 0)
        if not active.any():
            break
    medoids = medoids.sort(1).values
    return Clusters(medoids, _assign(d, medoids, tie))


def _start(d: Tensor, first: Tensor, k: int, tie: Tensor) -> Tensor:
    """KKZ: after the first medoid always the token farthest from all medoids so far. (R, K)."""
    chosen = first[:, None]
    medoids = [chosen]
    # (R, N), distance to the nearest medoid; a medoid itself has -inf
    nearest = torch.full_like(d[:, 0], torch.inf)
    for _ in range(k - 1):
        nearest = torch.minimum(nearest, _take(d, chosen)[:, 0])
        nearest.scatter_(1, chosen, -torch.inf)
        chosen = _first_max(nearest, tie)[:, None]
        medoids.append(chosen)
    return torch.cat(medoids, 1)


def _assign(d: Tensor, medoids: Tensor, tie: Tensor) -> Tensor:
    """Index of the medoid nearest to each token, (R, N).

    Ties go to the lowest index; a medoid is always assigned to itself.
    """
    k = medoids.shape[1]
    near = _take(d, medoids)  # (R, K, N)
    itself = -1.0 - 2 * tie[..., None].expand(-1, k, -1)  # below every distance and its tie
    near.scatter_(2, medoids[..., None], itself)
    limit = near.amin(1, keepdim=True) + tie[..., None]  # (R, 1, N)
    number = torch.arange(k, device=d.device)[:, None]  # (K, 1)
    return torch.where(near <= limit, number, k).amin(1)


def _update(d: Tensor, assign: Tensor, k: int, tie: Tensor) -> Tensor:
    """Return the token of each cluster with the smallest sum of distances to its members, (R, K).

    Ties go to the lowest index.
    """
    n_rows, n = assign.shape
    is_same = assign[:, :, None] == assign[:, None, :]  # (R, N, N)
    cost = torch.where(is_same, d, 0.0).sum(-1)  # (R, N)
    least = cost.new_full((n_rows, k), torch.inf).scatter_reduce_(1, assign, cost, "amin")
    is_least = cost <= least.gather(1, assign) + tie
    ids = torch.arange(n, device=d.device).expand(n_rows, n)
    ids = torch.where(is_least, ids, n)
    return ids.new_full((n_rows, k), n).scatter_reduce_(1, assign, ids, "amin")


def _distance_moved(x: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Return the sum of the L2 distances between old and new medoids of each row, (R, 1)."""
    row, place = (old != new).nonzero(as_tuple=True)
    steps = x[row, new[row, place]] - x[row, old[row, place]]
    return x.new_zeros(len(x)).index_add_(0, row, steps.norm(dim=-1))[:, None]


def _first_max(values: Tensor, tie: Tensor | None = None) -> Tensor:
    """Index of the largest value of each row (R, N): (R,).

    Ties go to the lowest index; values that are equal up to rounding tie.
    """
    largest = values.amax(1, keepdim=True)
    if tie is None:
        tie = _TIE * largest.abs()
    return (values >= largest - tie).byte().argmax(1)  # documented: argmax takes the first


def _take(x: Tensor, ids: Tensor) -> Tensor:
    """Return rows `ids` (R, K) of each matrix of x (R, N, D): (R, K, D)."""
    return x.gather(1, ids[..., None].expand(-1, -1, x.shape[-1]))
