"""Normalised spectral clustering of small sets of tokens: affinities, embedding, then k-medoids.

Papers: Zhao et al., CenterCLIP (SIGIR 2022), section 3.2.2 and algorithm 2; Ng, Jordan and Weiss
(2002). Published code: mzhaoshuai/CenterCLIP: modules/cluster/spectral.py
(docs/specs/centerclip.md, section 5.3).

Where we differ
- Eigenvectors of the symmetric Laplacian in float64; the published float32 singular vectors lose
  their digits where all affinities are small. The diagonal is the sum of the other weights of a
  row, not a difference of nearly equal numbers.
- Signs of eigenvectors are left alone: no distance depends on them.
- The first medoid is the longest row before rows are scaled to length 1 (see
  models/centerclip/kmedoids.py).
"""

import math
from typing import Literal

import torch
from torch import Tensor

from models.centerclip.kmedoids import Clusters, Metric, join_rows, kmedoids, squared_distances
from models.parts.eager import eager

Graph = Literal["knn", "heat"]

_TINY = 1e-6
_FEWEST = 5  # neighbours; a smaller number means the automatic one, as published
_CHUNK_BYTES = 128 << 20


@eager
@torch.no_grad()
def spectral(
    tokens: Tensor,
    k: int,
    *,
    sigma: float = 2.0,
    neighbours: int | None = None,
    near: Tensor | None = None,
    metric: Metric = "euclidean",
    p: float = 2.0,
    max_iter: int = 100,
    tol: float = 1e-5,
    chunk_bytes: int = _CHUNK_BYTES,
) -> Clusters:
    """Return K medoids of each of R sets of N tokens (R, N, D) by their spectral embedding.

    Ids refer to the tokens. neighbours: keep the affinities to this many nearest tokens, without
    it all. near (N, N) bool: keep only these as well. The rest as `kmedoids`, which clusters the
    embedding.

    Raises ValueError for k beyond N.
    """
    n_rows, n, dim = tokens.shape
    if not 1 <= k <= n:
        raise ValueError(f"{k} medoids of {n} tokens")
    chunk = max(1, chunk_bytes // (8 * n * (6 * n + dim)))
    how = {"metric": metric, "p": p, "max_iter": max_iter, "tol": tol}
    parts = []
    with torch.autocast(tokens.device.type, enabled=False):
        for start in range(0, n_rows, chunk):
            weights = affinity(tokens[start : start + chunk], sigma, neighbours, near)
            _, vectors = torch.linalg.eigh(laplacian(weights))
            vectors = vectors[..., :k]  # (r, N, K), of the smallest eigenvalues
            lengths = vectors.norm(dim=-1)
            scaled = vectors / (lengths + _TINY)[..., None]
            parts.append(kmedoids(scaled, k, lengths=lengths, **how))
    return join_rows(parts)


def affinity(
    tokens: Tensor, sigma: float, neighbours: int | None = None, near: Tensor | None = None
) -> Tensor:
    """Return exp(-|a - b|^2 / 2 sigma^2) of all pairs of tokens (R, N, D): (R, N, N) float64.

    It is symmetric with 1 on the diagonal. neighbours: keep entries among the `neighbours` largest
    of their row or column, themselves included. near (N, N) bool: keep only these.
    """
    weights = squared_distances(tokens).mul_(-0.5 / sigma**2).exp_()
    if neighbours is not None:
        most = min(neighbours, weights.shape[-1])
        least = weights.topk(most, dim=-1).values[..., -1:]  # (R, N, 1)
        is_near = weights >= least
        weights = weights.where(is_near | is_near.transpose(1, 2), 0.0)
    if near is not None:
        weights = weights * near
    return weights


def laplacian(weights: Tensor) -> Tensor:
    """Return Deg^-1/2 (Deg - W) Deg^-1/2 of affinities W (R, N, N), symmetric, (R, N, N).

    The diagonal of W counts in the degrees.
    """
    root = weights.sum(-1).rsqrt()  # (R, N)
    others = weights.clone()
    others.diagonal(dim1=1, dim2=2).zero_()
    result = torch.diag_embed(others.sum(-1)) - others
    return result * root[:, :, None] * root[:, None, :]


def automatic_neighbours(stated: int, per_frame: int, frames: int) -> int:
    """Return how many neighbours the published code keeps in a segment.

    It has `frames` frames with `per_frame` tokens each.
    """
    if stated >= _FEWEST:
        return stated
    return 5 * frames if per_frame < 100 else 5 * frames + 5


def space_time_neighbours(
    per_frame: int, frames: int, space: int | None = None, time: int = 7
) -> Tensor:
    """Return which tokens of a segment lie near each other, (N, N) bool.

    These are at most space // 2 cells and time // 2 frames apart. N = frames x per_frame, ids frame
    by frame and row by row in a square grid. space: by default 9, or 19 from 100 tokens on.
    """
    if space is None:
        space = 9 if per_frame < 100 else 19
    side = math.isqrt(per_frame)
    ids = torch.arange(frames * per_frame)
    place = ids % per_frame
    axes = [(ids // per_frame, time), (place // side, space), (place % side, space)]
    near = [(at[:, None] - at).abs() <= size // 2 for at, size in axes]  # (N, N) each
    return torch.stack(near).all(0)
