"""Where the points are won and lost: top-1 answers by attribute of the video, and the best and
worst queries.
"""

import numpy as np

from pipeline.evaluation.generation import SIMILARITY
from pipeline.evaluation.retrieve import Result

_OVER = {
    "none": SIMILARITY,
    "diffusion": "none",
}  # ways of ranking that sample, and what sampling starts from


def gains(found: dict[str, dict]) -> dict[str, dict]:
    """Return what sampling adds, from the metrics of each way of ranking: {way: {over, t2v: {R1,
    ...}, v2t: {R1, ...}}}.

    Differences of every recall, of the median and of the mean rank; {} where nothing was sampled.
    """
    return {
        way: (
            {"over": over}
            | {side: _differences(found[way][side], found[over][side]) for side in ("t2v", "v2t")}
        )
        for way, over in _OVER.items()
        if way in found and over in found
    }


def _differences(values: dict, others: dict) -> dict[str, float]:
    return {key: round(values[key] - others[key], 4) for key in values if key[0] in "RM"}


def attribute_rates(
    t2v: np.ndarray, target: np.ndarray, attributes: list[dict[str, str]]
) -> dict[str, dict[str, float]]:
    """Per attribute, how often the top answer has the value of the query's own video: {name:
    {right, chance, n}}.

    t2v (N_t, N_v), target int64 (N_t,), attributes of each gallery video. right and chance in
    percent, n queries whose video has the attribute. chance: the share of the gallery that has the
    value. Answers that share the top score count by their share: a model that cannot tell a clip
    from its reversal is right about the motion in half of them.
    """
    top = t2v == t2v.max(axis=1, keepdims=True)
    n_top = np.count_nonzero(top, axis=1)
    rates = {}
    for name in dict.fromkeys(key for values in attributes for key in values):
        values = np.array([video.get(name, "") for video in attributes])
        asked = np.flatnonzero(values[target] != "")
        same = values[target[asked]][:, None] == values[None, :]
        rates[name] = {
            "right": (
                100.0 * float(np.mean(np.count_nonzero(top[asked] & same, axis=1) / n_top[asked]))
            ),
            "chance": 100.0 * float(same.mean()),
            "n": len(asked),
        }
    return rates


def examples(
    result: Result,
    target: np.ndarray,
    captions: list[tuple[str, str]],
    video_ids: list[str],
    count: int,
    answers: int = 5,
) -> dict[str, list[dict]]:
    """Return the `count` best and worst text queries, each of another video: {"best": [...],
    "worst": [...]}.

    captions: (id, text) of each query. Each entry: caption, text, video, rank (from 1, ties lost),
    margin (own score minus the best other), answers [{video, score}] from the top. best: of the
    queries that won, evenly spaced from the clearest to the closest, which say more than the
    clearest alone; if none won, the least lost. worst holds lost queries only, the furthest first.
    """
    ranks = result.evaluation.t2v.ranks("pessimistic")
    margin = _margins(result.t2v, target)
    lost = ranks > 0
    clearest = np.lexsort((-margin, ranks))
    furthest = np.lexsort((margin, -ranks))
    won = _one_per_video(clearest[~lost[clearest]], target)
    chosen = {
        "best": _spread(won, count) if won else _one_per_video(clearest, target)[:count],
        "worst": _one_per_video(furthest[lost[furthest]], target)[:count],
    }
    return {
        side: [
            _example(
                result.t2v,
                row,
                own=int(target[row]),
                captions=captions,
                video_ids=video_ids,
                answers=answers,
            )
            | {
                "rank": int(ranks[row]) + 1,
                "margin": float(margin[row]),
            }
            for row in rows
        ]
        for side, rows in chosen.items()
    }


def _spread(rows: list[int], count: int) -> list[int]:
    """Return `count` of the rows, evenly spaced, both ends among them."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows)))
    return [rows[int(place)] for place in places.round()]


def _one_per_video(rows: np.ndarray, target: np.ndarray) -> list[int]:
    first: dict[int, int] = {}
    for row in rows:
        first.setdefault(int(target[row]), int(row))
    return list(first.values())


def _example(
    t2v: np.ndarray,
    row: int,
    own: int,
    captions: list[tuple[str, str]],
    video_ids: list[str],
    answers: int,
) -> dict:
    top = np.argsort(-t2v[row], kind="stable")[:answers]
    return {
        "caption": captions[row][0],
        "text": captions[row][1],
        "video": video_ids[own],
        "answers": [
            {"video": video_ids[column], "score": float(t2v[row, column])} for column in top
        ],
    }


def _margins(t2v: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Own score minus the best other of each row, float64 (n,); 0 where there is no other."""
    margins = np.zeros(len(t2v))
    for n, (row, own) in enumerate(zip(t2v, target, strict=True)):
        others = max(row[:own].max(initial=-np.inf), row[own + 1 :].max(initial=-np.inf))
        margins[n] = row[own] - others if np.isfinite(others) else 0.0
    return margins


def chance(
    target: np.ndarray, n_videos: int, ks: tuple[int, ...], convention: str
) -> dict[str, dict[str, float]]:
    """Return what guessing gives: {"t2v": {R<k>..., MdR, MnR}, "v2t": {R<k>...}}, R in percent.

    Over all captions a video with several of them has more than one right answer (hypergeometric).
    """
    n_texts = len(target)
    t2v = {f"R{k}": 100.0 * min(1.0, k / n_videos) for k in ks}
    own = np.bincount(target, minlength=n_videos)
    own = own[own > 0]
    if convention == "groups":
        v2t = {f"R{k}": 100.0 * min(1.0, k / len(own)) for k in ks}
    else:
        v2t = {f"R{k}": 100.0 * float(1 - np.mean(_all_miss(own, n_texts, k))) for k in ks}
    return {"t2v": t2v | {"MdR": (n_videos + 1) / 2, "MnR": (n_videos + 1) / 2}, "v2t": v2t}


def _all_miss(own: np.ndarray, n: int, k: int) -> np.ndarray:
    """Chance that none of k items drawn from n is one of `own`, for each count of own items."""
    drawn = np.arange(min(k, n))
    return np.prod(np.clip((n - own[:, None] - drawn) / (n - drawn), 0, 1), axis=1)
