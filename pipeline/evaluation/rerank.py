"""Transductive post-processing of a score matrix: dual softmax (DSL) and query-bank normalisation
(QB-Norm).

Both use other queries than the one asked, so their numbers are always reported under their own
name. For ranking use the `*_order` functions: logarithms in float64, so nothing overflows (float32
exp does from 88) or underflows into false ties. `dsl`, `inverted_softmax` and
`qb_norm(order=False)` give the published matrices.

Sources: CAMoE (starmemda/CAMoE: DSL.py); QB-Norm, Bogolin et al., CVPR 2022 (ioanacroi/qb-norm:
dynamic_inverted_softmax.py); DGL (knightyxp/DGL: search_for_best_r1_with_qb_norm.py) adds theta.
All matrices have rows = queries, so video-to-text is the same call on the v2t matrix and its own
bank.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.errors import DataError


def dsl(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Published dual softmax, dtype of scores: S * softmax(S / temperature, over queries) * number
    of queries.
    """
    prior = np.exp(_log_softmax(scores, temperature))
    return (prior * scores * len(scores)).astype(scores.dtype)


def dsl_order(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Scores that order each row as `dsl` does, float64 (n, m): log softmax + log S.

    Where S is negative the product would invert the order (a higher prior would count against an
    item): such items keep their order, below everything positive. Give logits (cosines times their
    scale), so that few are negative.
    """
    order = _log_softmax(scores, temperature)
    positive, negative = scores > 0, scores < 0
    np.add(
        order, np.log(scores, where=positive, out=np.zeros_like(order)), out=order, where=positive
    )
    np.subtract(
        order, np.log(-scores, where=negative, out=np.zeros_like(order)), out=order, where=negative
    )
    floor = np.min(order, where=positive, initial=0.0) - 1
    top = np.max(order, where=negative, initial=-np.inf)
    np.add(order, floor - 1 - top, out=order, where=negative)
    order[~positive & ~negative] = floor
    return order


def dsl_loss(scores: np.ndarray, temperature: float = 1000.0) -> float:
    """CAMoE's loss of one direction on a square logit matrix: mean over rows of -log
    softmax(dsl(S))[diagonal].
    """
    product = np.exp(_log_softmax(scores, temperature)) * scores * len(scores)
    return float(np.mean(_logsumexp(product, axis=1)[:, 0] - np.diagonal(product)))


def activation_set(bank: np.ndarray, k: int = 1, theta: int = 1) -> np.ndarray:
    """Gallery items that occur at least theta times among the top k of the bank queries (b, m),
    int64, ascending.

    theta 1 is QB-Norm, larger ones are DGL's. Ties go to the lowest index.
    """
    top = np.argmax(bank, axis=1) if k == 1 else np.argsort(-bank, axis=1, kind="stable")[:, :k]
    return np.flatnonzero(np.bincount(top.ravel(), minlength=bank.shape[1]) >= theta)


def inverted_softmax(scores: np.ndarray, bank: np.ndarray, beta: float) -> np.ndarray:
    """Static inverted softmax, dtype of scores: exp(beta S_ij) / sum over the bank of exp(beta
    Q_bj).
    """
    return np.exp(inverted_softmax_order(scores, bank, beta)).astype(scores.dtype)


def inverted_softmax_order(scores: np.ndarray, bank: np.ndarray, beta: float) -> np.ndarray:
    """Logarithm of `inverted_softmax`, float64 (n, m): the same order in each row."""
    return beta * scores.astype(np.float64) - _logsumexp(beta * bank.astype(np.float64), axis=0)


@dataclass(frozen=True)
class Normalised:
    """scores (n, m); rows: the queries that were normalised (the others are raw); activated:
    gallery items.
    """

    scores: np.ndarray
    rows: np.ndarray
    activated: np.ndarray


def qb_norm(
    scores: np.ndarray,
    bank: np.ndarray,
    *,
    beta: float = 20.0,
    k: int = 1,
    theta: int = 1,
    order: bool = True,
) -> Normalised:
    """Dynamic inverted softmax: normalise the rows whose own top item is in the activation set of
    the bank (b, m).

    beta: inverse temperature in units of the scores (20 on cosines; 0.5 to 1 on logits of about 100
    times the cosine).
    order: normalised rows hold logarithms (float64, for ranking); else the published values. Inputs
    are not changed.
    """
    activated = activation_set(bank, k, theta)
    rows = np.flatnonzero(np.isin(np.argmax(scores, axis=1), activated))
    transform = inverted_softmax_order if order else inverted_softmax
    result = scores.astype(np.float64 if order else scores.dtype)
    result[rows] = transform(scores[rows], bank, beta)
    return Normalised(result, rows, activated)


@dataclass(frozen=True)
class Found:
    """The best of the values that were tried; `tried`: value of each beta, in their order."""

    beta: float
    value: float
    tried: dict[float, float]


def beta_grid(start: float, stop: float, step: float) -> list[float]:
    """start, start + step, ... up to and including stop, without the rounding errors of adding
    up.
    """
    return [round(start + n * step, 10) for n in range(int(round((stop - start) / step, 6)) + 1)]


def search_beta(betas: list[float], value: Callable[[float], float]) -> Found:
    """Return the inverse temperature of `qb_norm` at which `value` is largest; the first of equal
    values.

    Source: knightyxp/DGL: search_for_best_r1_with_qb_norm.py, where the value is the recall of the
    very queries that are reported, so such numbers are optimistic.
    """
    tried = {beta: value(beta) for beta in betas}
    best = max(betas, key=lambda beta: tried[beta])
    return Found(best, tried[best], tried)


def _log_softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    logits = scores.astype(np.float64)
    logits /= temperature
    logits -= _logsumexp(logits, axis=0)
    return logits


def _logsumexp(x: np.ndarray, axis: int) -> np.ndarray:
    """Log of the sum of exp along an axis, which is kept with length 1."""
    top = np.max(x, axis=axis, keepdims=True)
    return top + np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True))


def check_bank(scores: np.ndarray, bank: np.ndarray, where: object) -> None:
    """DataError unless the bank has the gallery of scores as its columns and only finite
    numbers.
    """
    if bank.shape[1] != scores.shape[1]:
        hint = (
            " It seems transposed (metrics: --bank-v2t-transposed)."
            if len(bank) == scores.shape[1]
            else ""
        )
        raise DataError(
            f"the bank has {bank.shape[1]:,} columns, the gallery {scores.shape[1]:,} items",
            where=where,
            fix=f"Rows are the bank's queries, columns the same gallery as in the scores.{hint}",
        )
    if not np.isfinite(bank).all():
        raise DataError(
            "the bank holds NaN or infinite scores", where=where, fix="Score the bank again."
        )
