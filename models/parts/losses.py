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
    """Hinge loss () of the rows of `scores` (B, B): each row's match must beat its negatives by
    `margin`.

    max_violation: only the hardest negative of a row counts; otherwise all do. cost: mean or sum
    over what counts (rows, or all B x B entries). excluded (B, B) bool: pairs that are no
    negatives, besides the diagonal.
    """
    match = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    costs = (margin + scores - scores.diagonal()[:, None]).clamp(min=0)
    costs = costs.masked_fill(match if excluded is None else match | excluded, 0)
    if max_violation:
        costs = costs.max(dim=1).values
    return costs.mean() if cost == "mean" else costs.sum()


def triplets(
    scores: Tensor, direction: Literal["all", "t2v", "v2t"] = "all", **options: object
) -> dict[str, Tensor]:
    """`triplet` by name of direction; scores (B, B) with texts as rows. t2v: each text against the
    videos.
    """
    sides = {"t2v": scores, "v2t": scores.T}
    return {
        name: triplet(side, **options) for name, side in sides.items() if direction in ("all", name)
    }


def tag_loss(logits: Tensor, labels: Tensor, cost: Cost = "mean") -> Tensor:
    """Binary cross-entropy () of logits (B, K) with soft labels in [0, 1]: the mean over tags and
    rows.

    cost sum multiplies by B, as danieljf24/hybrid_space does to match its summed triplet terms.
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels)
    return loss if cost == "mean" else loss * len(logits)


def contrastive(logits: Tensor, first: int = 0) -> Tensor:
    """Mean cross-entropy () of queries (n, N) with their own column: that of row i is first + i
    (InfoNCE, one side).
    """
    own = torch.arange(first, first + len(logits), device=logits.device)
    return F.cross_entropy(logits, own)


def correlation(
    a: Tensor, b: Tensor, weight: Tensor | None = None, count: int | None = None
) -> Tensor:
    """How the channels of matched rows a, b (N, D) go together: (D, D), Z(a)^T Z(b) / count
    (default N).

    Z: mean 0 and deviation 1 (unbiased, no epsilon) of each channel. weight (N,): of each row in
    the product, not in Z. One matrix product: (N, D) and (D, D) are all that is kept, where the
    published code makes (N, D, D). For a batch of 128 (N = 1,500 words, D = 512) 23 MB are kept for
    backward and 28 MB held at the peak; published: 1.8 GB. N of 1 or a channel that is constant
    gives NaN.
    """
    a, b = ((x - x.mean(0)) / x.std(0) for x in (a, b))
    return (a if weight is None else a * weight[:, None]).T @ b / (count or len(a))


def decorrelation(matrix: Tensor, alpha1: float, alpha2: float) -> Tensor:
    """CDCR (): alpha1 x squared distances of the diagonal from 1 + alpha2 x squares of the rest.
    matrix (D, D).
    """
    diagonal = matrix.diagonal()
    rest = matrix.square().sum() - diagonal.square().sum()
    return alpha1 * (diagonal - 1).square().sum() + alpha2 * rest
