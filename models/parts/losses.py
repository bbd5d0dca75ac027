"""Losses on square score matrices whose diagonal holds the matching pairs, and on tag labels.

Papers: VSE++ (Faghri et al., BMVC 2018, hardest negatives), Dual Encoding (Dong et al., TPAMI 2021,
section 3.4), DRL (Wang et al. 2022, section 3.3, channel decorrelation).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Cost = Literal["mean", "sum"]


def triplet(
    scores: Tensor,
    margin: float = 0.2,
    *,
    max_violation: bool = True,
    cost: Cost = "mean",
    excluded: Tensor | None = None,
) -> Tensor:
    """Return the hinge loss () of scores (B, B): each row's match beats its negatives by `margin`.

    max_violation: only the hardest negative of a row counts; otherwise all do. cost: mean or sum
    over what counts (rows, or all B x B entries). excluded (B, B) bool: pairs besides the diagonal
    that are no negatives.
    """
    no_negative = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    if excluded is not None:
        no_negative = no_negative | excluded
    match = scores.diagonal()[:, None]  # (B, 1)
    costs = (margin + scores - match).clamp(min=0).masked_fill(no_negative, 0)  # (B, B)
    if max_violation:
        costs = costs.max(dim=1).values  # (B,)
    return costs.mean() if cost == "mean" else costs.sum()


def triplets(
    scores: Tensor, direction: Literal["all", "t2v", "v2t"] = "all", **options: object
) -> dict[str, Tensor]:
    """Return `triplet` () by name of direction, from scores (B, B) with texts as rows.

    t2v: each text against the videos. options: as those of `triplet`.
    """
    sides = {"t2v": scores, "v2t": scores.T}
    wanted = sides if direction == "all" else {direction: sides[direction]}
    return {name: triplet(side, **options) for name, side in wanted.items()}


def tag_loss(logits: Tensor, labels: Tensor, cost: Cost = "mean") -> Tensor:
    """Return the binary cross-entropy () of logits (B, K) with soft labels (B, K) in [0, 1].

    It is the mean over tags and rows; cost sum multiplies it by B, as danieljf24/hybrid_space does
    to match its summed triplet terms.
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels)
    return loss if cost == "mean" else loss * len(logits)


def contrastive(logits: Tensor, first: int = 0) -> Tensor:
    """Return the mean cross-entropy () of queries (n, N) with their own column (InfoNCE, one side).

    The own column of row i is first + i.
    """
    own = torch.arange(first, first + len(logits), device=logits.device)
    return F.cross_entropy(logits, own)


def correlation(
    a: Tensor, b: Tensor, weight: Tensor | None = None, count: int | None = None
) -> Tensor:
    """Return how channels of matched rows a, b (N, D) vary together: (D, D), Z(a)^T Z(b) / count.

    Z: mean 0 and deviation 1 (unbiased, no epsilon) of each channel. weight (N,): of each row in
    the product, not in Z. count: by default N. N of 1 or a channel that is constant gives NaN.

    One matrix product: (N, D) and (D, D) are all that is kept, where the published code makes
    (N, D, D). For a batch of 128 (N = 1,500 words, D = 512) 23 MB are kept for backward and 28 MB
    held at the peak; published: 1.8 GB.
    """
    a = _standardise(a)
    b = _standardise(b)
    if weight is not None:
        a = a * weight[:, None]
    return a.T @ b / (count or len(a))


def _standardise(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0)


def decorrelation(matrix: Tensor, alpha1: float, alpha2: float) -> Tensor:
    """Return CDCR () of a correlation matrix (D, D).

    alpha1 x squared distances of the diagonal from 1 + alpha2 x squares of the rest.
    """
    diagonal = matrix.diagonal()
    rest = matrix.square().sum() - diagonal.square().sum()
    return alpha1 * (diagonal - 1).square().sum() + alpha2 * rest
