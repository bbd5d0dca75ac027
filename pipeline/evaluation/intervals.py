"""How sure a metric is, and whether two models differ by more than chance.

A split of videos is a sample: other videos would have given other numbers. The bootstrap draws the
videos of the split again, with replacement, and takes the metric of each draw; a video brings all
its captions along, since these are not independent. The gallery stays as it is: ranks are those of
the evaluation. Two models are compared on the same draws.

Source: docs/specs/metrics.md, section 8. Seeded; sums are of whole numbers, so the same seed gives
the same bytes on every machine.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.metrics import Counts, Evaluation, Median, Ties

RESAMPLES = 2_000
LEVEL = 95  # percent
SEED = 0
KS = (1, 5, 10)
_BLOCK_NUMBERS = 1 << 22  # of the weights of a block of draws
_SWAPS = 10_000


@dataclass(frozen=True)
class Queries:
    """Ranks of the queries of one direction, zero-based, and the video of each.

    ranks float64 (n,); videos int64 (n,) in 0 .. n_videos - 1. Under the policy "expanded" a query
    has as many entries as it has places.
    """

    ranks: np.ndarray
    videos: np.ndarray
    median: Median = "mean"

    @classmethod
    def of(
        cls, counts: Counts, videos: np.ndarray, ties: Ties, median: Median = "mean"
    ) -> "Queries":
        """Return the ranks of counted queries under a policy. videos (n,): of each query."""
        entries = videos
        if ties == "expanded":
            entries = np.repeat(videos, counts.tied + 1)
        return cls(counts.ranks(ties), entries, median)

    def per_video(self, values: np.ndarray, n_videos: int) -> np.ndarray:
        """Return the sums of values (n,) over the queries of each video, float64 (n_videos,)."""
        return np.bincount(self.videos, weights=values, minlength=n_videos)


def sides_of(
    found: Mapping[str, Counts],
    target: np.ndarray,
    ties: Ties = "pessimistic",
    t2v_median: Median = "mean",
) -> tuple[dict[str, Queries], int]:
    """Return the queries of "t2v" and "v2t", and how many videos have a caption.

    found: the counts of both directions, those of v2t for the videos that have a caption, in their
    order. target int64 (N_t,): the video of each text.
    """
    rows, video = np.unique(target, return_inverse=True)
    sides = {
        "t2v": Queries.of(found["t2v"], video, ties, t2v_median),
        "v2t": Queries.of(found["v2t"], np.arange(len(rows)), ties),
    }
    return sides, len(rows)


def bootstrap(
    sides: dict[str, Queries],
    n_videos: int,
    *,
    ks: tuple[int, ...] = KS,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the metrics of each draw: {side: {R<k>, ..., MdR, MnR, Rsum: float64 (resamples,)}}.

    All sides see the same draws, so that their sums and differences may be taken draw by draw.
    """
    found: dict[str, dict[str, list]] = {side: {} for side in sides}
    most = max(n_videos, *(len(queries.ranks) for queries in sides.values()))
    for weights in _draws(n_videos, seed, resamples, max(1, _BLOCK_NUMBERS // most)):
        for side, queries in sides.items():
            for name, values in _metrics(queries, weights, ks).items():
                found[side].setdefault(name, []).append(values)
    return {
        side: {name: np.concatenate(parts) for name, parts in metrics.items()}
        for side, metrics in found.items()
    }


def _draws(n_videos: int, seed: int, resamples: int, size: int) -> Iterator[np.ndarray]:
    """Yield how often each video is drawn, float64 (at most size, n_videos) at a time."""
    random = np.random.default_rng(seed)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        drawn = random.integers(n_videos, size=(count, n_videos))
        drawn += n_videos * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * n_videos)
        yield weights.reshape(count, n_videos).astype(np.float64)


def _metrics(queries: Queries, weights: np.ndarray, ks: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return the metrics of draws whose weights are (b, n_videos): float64 (b,) each."""
    n_videos = weights.shape[1]
    ranks = queries.ranks
    n = weights @ queries.per_video(np.ones_like(ranks), n_videos)
    recall = {}
    for k in {*KS, *ks}:
        hits = queries.per_video(ranks < k if k > 1 else ranks <= 0, n_videos)
        recall[k] = 100 * (weights @ hits) / n
    found = {f"R{k}": recall[k] for k in ks}
    found["MdR"] = _medians(queries, weights) + 1
    found["MnR"] = weights @ queries.per_video(ranks, n_videos) / n + 1
    found["Rsum"] = recall[1] + recall[5] + recall[10]
    return found


def _medians(queries: Queries, weights: np.ndarray) -> np.ndarray:
    """Median ranks of the draws, zero-based, float64 (b,)."""
    order = np.argsort(queries.ranks, kind="stable")
    ranks = queries.ranks[order]
    reached = np.cumsum(weights[:, queries.videos[order]], axis=1)  # (b, n) entries up to each
    n = reached[:, -1]
    lower = ranks[np.argmax(reached > ((n - 1) // 2)[:, None], axis=1)]
    if queries.median == "lower":
        return lower
    upper = ranks[np.argmax(reached > (n // 2)[:, None], axis=1)]
    return (lower + upper) / 2


def limits(values: np.ndarray) -> list[float]:
    """Return what `LEVEL` percent of the draws lie between: [low, high]."""
    outside = (100 - LEVEL) / 2
    return [float(limit) for limit in np.percentile(values, [outside, 100 - outside])]


def intervals(
    sides: dict[str, Queries], n_videos: int, *, ks: tuple[int, ...] = KS, seed: int = SEED
) -> dict:
    """Return {side: {metric: [low, high]}, "Rsum": [low, high], level, resamples, seed, videos}."""
    draws = bootstrap(sides, n_videos, ks=ks, seed=seed)
    found: dict = {
        side: {name: limits(values) for name, values in metrics.items()}
        for side, metrics in draws.items()
    }
    both = sum(metrics["Rsum"] for metrics in draws.values())
    return found | {
        "Rsum": limits(both),
        "level": LEVEL,
        "resamples": RESAMPLES,
        "seed": seed,
        "videos": n_videos,
    }


def of_evaluation(
    found: Evaluation, target: np.ndarray, *, ks: tuple[int, ...] = KS, seed: int = SEED
) -> dict:
    """Return the intervals of both directions of an evaluation, as `intervals` does.

    target int64 (N_t,): the video of each text.
    """
    sides, n_videos = sides_of(
        {"t2v": found.t2v, "v2t": found.v2t},
        target,
        ties=found.metrics["tie_policy"],
        t2v_median=found.metrics.get("t2v_median", "mean"),
    )
    return intervals(sides, n_videos, ks=ks, seed=seed)


def interval_words(found: Mapping) -> str:
    """Return how intervals were computed, in one line. found: as `intervals` returns them."""
    return (
        f"{found['level']} % intervals: {found['resamples']:,} draws of the {found['videos']:,}"
        f" videos that have captions, seed {found['seed']}"
    )


def swap_test(difference: np.ndarray, *, seed: int = SEED, swaps: int = _SWAPS) -> float:
    """Return the share of random swaps of two models that give as large a difference: p.

    difference (n_videos,): hits of one model less those of the other, over the queries of a video.
    If the models are alike, which of them gave which result of a video is a toss of a coin.
    """
    random = np.random.default_rng(seed)
    total = abs(difference.sum())
    moved = difference[difference != 0]
    as_large = 0
    size = max(1, _BLOCK_NUMBERS // max(1, len(moved)))
    for start in range(0, swaps, size):
        signs = random.integers(2, size=(min(size, swaps - start), len(moved))) * 2 - 1
        as_large += int(np.count_nonzero(np.abs(signs @ moved) >= total))
    return (1 + as_large) / (1 + swaps)
