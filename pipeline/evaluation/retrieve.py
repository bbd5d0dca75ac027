"""Encode everything once, score in blocks within a memory budget, fuse over the whole gallery,
re-rank, count ranks.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor

from models.base import Batch, Encoding, Fusion, Mismatch, Ranking, RetrievalModel, gather
from models.parts.noise import KeyedNoise
from pipeline.errors import DataError
from pipeline.evaluation import rerank as reranking
from pipeline.evaluation.generation import SIMILARITY, Reranker
from pipeline.evaluation.kept import KeptSide
from pipeline.evaluation.metrics import (
    KS,
    Convention,
    Evaluation,
    Median,
    Ties,
    check_finite,
    evaluate,
)
from pipeline.processes import World

Batches = Iterable[
    tuple[Sequence[int], Batch]
]  # positions of the items in the result, and the batch
BLOCK_BYTES = 256 << 20
_NO_ROWS = np.zeros(0, np.int64)
_PLACE = "tvrkit.place"  # among the encodings that processes exchange: where each row belongs
COSINE_SCALE = 100.0  # CLIP's factor; for models whose own scale is 1


@dataclass(frozen=True)
class Encoded:
    """Texts and videos of a split, encoded. row_of_text int64 (N_t,): equal captions share one row
    of `text`.

    text_keys, video_keys uint64: what rows of `text` and `video` are known by, wherever they are
    ranked (noise.py). seconds: how long encoding took, {"text", "video"}.
    """

    text: Encoding
    video: Encoding
    row_of_text: np.ndarray
    text_keys: np.ndarray | None = None
    video_keys: np.ndarray | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def noise(self, seed: int) -> KeyedNoise | None:
        """For models that sample, or None where nobody said what the rows are."""
        if self.text_keys is None or self.video_keys is None:
            return None
        return KeyedNoise(seed, self.text_keys, self.video_keys)

    @property
    def vectors(self) -> dict[str, dict[str, np.ndarray]]:
        """{"text": {name: rows}, "video": {name: rows}} as arrays that share the memory."""
        sides = {"text": self.text, "video": self.video}
        return {
            side: {name: rows.numpy() for name, rows in encoding.items()}
            for side, encoding in sides.items()
        }


@dataclass(frozen=True)
class RankSettings:
    """How a split is ranked. rerank: any of none, dsl, qbnorm, diffusion, each giving a Result of
    its own.

    dsl_scale: what scores are multiplied by before the dual softmax; None: the model's scale, or
    100 if it has none. bank, beta, k, theta: QB-Norm, on unscaled scores (its published defaults
    are for cosines); it needs a bank of other texts and videos. budget: bytes for a block of
    scores. world: the processes that score together. seed: of the noise of models that sample.
    second: whose denoisers re-rank in diffusion.
    """

    rerank: tuple[str, ...] = ("none",)
    ties: Ties = "pessimistic"
    convention: Convention = "captions"
    t2v_median: Median = "mean"
    ks: tuple[int, ...] = KS
    dsl_scale: float | None = None
    bank: Encoded | None = None
    beta: float = 20.0
    k: int = 1
    theta: int = 1
    budget: int = BLOCK_BYTES
    world: World = World()
    seed: int = 0
    second: Reranker | None = None


@dataclass(frozen=True)
class Result:
    """One way of ranking. metrics: as `metrics.evaluate`, plus "rerank" and what it used. t2v, v2t:
    rows = queries. statistics: with which the model fuses a query alone as in this matrix.
    """

    rerank: str
    metrics: dict
    evaluation: Evaluation
    t2v: np.ndarray = field(repr=False)
    v2t: np.ndarray = field(repr=False)
    statistics: Mapping[str, float] = field(default_factory=dict)


def encode(
    encoder: Callable[[Batch, dict], Encoding],
    batches: Batches,
    shared: dict,
    n: int,
    world: World = World(),
    side: KeptSide | None = None,
) -> Encoding:
    """Return rows of all n items in order, on the CPU, whichever process encoded them.

    batches: all of them, or this process's share. side: what is kept of them already; `batches`
    then holds the rest. Raises DataError if they do not cover every
    position once.
    """
    ready = side.ready if side else []
    parts = [rows for _, rows in ready]
    positions = [n for where, _ in ready for n in where]
    device = None
    for where, batch in batches:
        device = device or _device(encoder)
        encoding = encoder({k: v.to(device, non_blocking=True) for k, v in batch.items()}, shared)
        rows = {k: v.detach().float().cpu() for k, v in encoding.items()}
        if side:
            side.keep(where, rows)
        parts.append(rows)
        positions.extend(where)
    rows = {k: torch.cat([part[k] for part in parts]) for k in parts[0]} if parts else {}
    place = torch.as_tensor(np.asarray(positions, dtype=np.int64))
    if world.size > 1 and len(place) < n:
        gathered = gather({k: v.to(device) for k, v in rows.items()} | {_PLACE: place.to(device)})
        rows = {k: v.cpu() for k, v in gathered.items()}
        place = rows.pop(_PLACE)
    if sorted(place.tolist()) != list(range(n)):
        raise DataError(
            f"{len(place):,} items were delivered for {n:,}",
            where="encode",
            fix="Run the step that makes them again.",
        )
    order = place.argsort()
    return {k: v[order] for k, v in rows.items()}


def _device(encoder: Callable) -> torch.device:
    return next(encoder.__self__.parameters()).device


@torch.inference_mode()
def encode_all(
    model: RetrievalModel,
    texts: Batches,
    videos: Batches,
    row_of_text: np.ndarray,
    n_videos: int,
    world: World = World(),
    sides: tuple[KeptSide | None, KeptSide | None] = (None, None),
) -> Encoded:
    """Encode the distinct texts and the videos of a split. The model must be in eval mode on its
    device. sides: what is kept of texts and of videos already.
    """
    shared = model.prepare()
    n_texts = int(row_of_text.max()) + 1
    start = time.perf_counter()
    text = encode(model.encode_text, texts, shared, n_texts, world=world, side=sides[0])
    middle = time.perf_counter()
    video = encode(model.encode_video, videos, shared, n_videos, world=world, side=sides[1])
    seconds = {"text": middle - start, "video": time.perf_counter() - middle}
    return Encoded(text, video, row_of_text, seconds=seconds)


@torch.inference_mode()
def score(
    model: RetrievalModel,
    text: Encoding,
    video: Encoding,
    budget: int = BLOCK_BYTES,
    world: World = World(),
) -> dict[str, Tensor]:
    """Return every named score (n_t, n_v), float32 on the CPU, computed on the model's device in
    blocks of `budget` bytes.

    Of several processes each scores its share of the texts.
    """
    n_t = len(next(iter(text.values())))
    if 1 < world.size <= n_t:
        bounds = [n_t * rank // world.size for rank in (world.rank, world.rank + 1)]
        own = score(model, {k: v[slice(*bounds)] for k, v in text.items()}, video, budget)
        device = next(model.parameters()).device
        return {k: v.cpu() for k, v in gather({k: v.to(device) for k, v in own.items()}).items()}
    n_v = len(next(iter(video.values())))
    device = next(model.parameters()).device
    rows, columns = block_shape(n_t, n_v, model.pair_bytes(text, video), budget)
    result: dict[str, Tensor] = {}
    for top in range(0, n_t, rows):
        block = _part(text, top, rows, device)
        for left in range(0, n_v, columns):
            for name, values in model.score(block, _part(video, left, columns, device)).items():
                whole = result.setdefault(name, torch.empty(n_t, n_v))
                whole[top : top + rows, left : left + columns] = values
    return result


def block_shape(n_t: int, n_v: int, pair_bytes: int, budget: int) -> tuple[int, int]:
    """Texts and videos per block: as near to square as fits, because each block moves rows +
    columns encodings.
    """
    pairs = max(1, budget // max(1, pair_bytes))
    side = max(1, math.isqrt(pairs))
    columns = min(n_v, max(side, pairs // min(n_t, side)))
    return min(n_t, max(1, pairs // columns)), columns


def _part(encoding: Encoding, start: int, n: int, device: torch.device) -> Encoding:
    return {k: v[start : start + n].to(device) for k, v in encoding.items()}


@torch.inference_mode()
def rankings(
    model: RetrievalModel,
    encoded: Encoded,
    budget: int = BLOCK_BYTES,
    world: World = World(),
    how: Fusion | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Final scores of a split, float32: t2v (N_t, N_v) and v2t (N_v, N_t), a row per caption.
    DataError on NaN.

    how: what the fusion gets; by default noise of seed 0 and the processes of `world`.
    """
    scores = finite_scores(model, encoded, budget, world)
    return fuse_scores(
        model, scores, encoded, how or Fusion(encoded.noise(0), world.rank, world.size)
    )


def finite_scores(
    model: RetrievalModel, encoded: Encoded, budget: int = BLOCK_BYTES, world: World = World()
) -> dict[str, Tensor]:
    """As `score`, of encoded texts and videos; DataError if a score is NaN or infinite."""
    scores = score(model, encoded.text, encoded.video, budget, world)
    for name, values in scores.items():
        check_finite(values.numpy(), f"score {name!r}")
    return scores


@torch.inference_mode()
def fuse_scores(
    model: RetrievalModel, scores: dict[str, Tensor], encoded: Encoded, how: Fusion
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the model makes of scores of distinct texts: t2v and v2t with a row per caption,
    as `rankings`.
    """
    try:
        found = model.fuse(scores, encoded.text, encoded.video, how)
    except Mismatch as error:
        raise DataError(error.what, where="ranking", fix=error.fix) from error
    return per_caption(found, encoded.row_of_text)


def per_caption(found: Ranking, row_of_text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of distinct texts -> of captions, t2v (N_t, N_v) and v2t (N_v, N_t). DataError on
    NaN.
    """
    check_finite(found.t2v.numpy(), "fused scores")
    t2v, v2t = found.t2v.numpy(), found.v2t.numpy()
    if len(row_of_text) == len(t2v) and (row_of_text == np.arange(len(t2v))).all():
        return t2v, v2t
    is_transpose = (
        found.v2t.data_ptr() == found.t2v.data_ptr()
    )  # then the result needs one matrix only
    t2v = t2v[row_of_text]
    return t2v, t2v.T if is_transpose else v2t[:, row_of_text]


def rank_split(
    model: RetrievalModel,
    encoded: Encoded,
    target: np.ndarray,
    settings: RankSettings = RankSettings(),
) -> Iterator[Result]:
    """Rank a split: a Result for each way of re-ranking in turn, from one matrix of scores.

    A model with a second stage is also ranked by its similarities alone, so that one sees what it
    adds. target int64 (N_t,): gallery row of each caption's own video. One after another, because
    the matrices of a large split fill the memory: drop a Result before asking for the next. Raises
    DataError if a score is NaN or infinite.
    """
    names = list(dict.fromkeys(settings.rerank))
    if model.second_stage is not None:
        names.insert(names.index("none") + 1 if "none" in names else 0, SIMILARITY)
    scored = _score_split(model, encoded, settings)
    for name in names:
        t2v, v2t, used = _RERANKERS[name](scored)
        found = evaluate(
            t2v, v2t, target, ties=settings.ties, convention=settings.convention, ks=settings.ks,
            t2v_median=settings.t2v_median,
        )  # fmt: skip
        metrics = found.metrics | {"rerank": name} | used
        yield Result(
            rerank=name,
            metrics=metrics,
            evaluation=found,
            t2v=t2v,
            v2t=v2t,
            statistics=scored.statistics,
        )


def take_part(model: RetrievalModel, encoded: Encoded, settings: RankSettings) -> None:
    """Do the share of any process but the first in what `rank_split` of the first one computes
    with all of them.
    """
    scored = _score_split(model, encoded, settings)
    if "diffusion" in settings.rerank:
        _diffusion(scored)


def retrieve(
    model: RetrievalModel,
    encoded: Encoded,
    target: np.ndarray,
    settings: RankSettings = RankSettings(),
) -> dict[str, Result]:
    """Return all Results of `rank_split` by the name of their re-ranking.

    For splits whose matrices fit into memory together.
    """
    return {result.rerank: result for result in rank_split(model, encoded, target, settings)}


@dataclass(frozen=True)
class _Scored:
    """What a re-ranking may use. scores: as the model gives them. raw: t2v and v2t, as it fuses
    them.
    """

    model: RetrievalModel
    encoded: Encoded
    scores: dict[str, Tensor]
    raw: tuple[np.ndarray, np.ndarray]
    settings: RankSettings
    statistics: Mapping[str, float]


def _score_split(model: RetrievalModel, encoded: Encoded, settings: RankSettings) -> _Scored:
    world = settings.world
    scores = finite_scores(model, encoded, settings.budget, world)
    noise, statistics = encoded.noise(settings.seed), model.statistics(scores)
    raw = fuse_scores(
        model, scores, encoded, Fusion(noise, world.rank, world.size, statistics=statistics)
    )
    return _Scored(
        model=model,
        encoded=encoded,
        scores=scores if model.second_stage else {},
        raw=raw,
        settings=settings,
        statistics=statistics,
    )


Reranked = tuple[np.ndarray, np.ndarray, dict]  # t2v, v2t, what was used


def _none(scored: _Scored) -> Reranked:
    return *scored.raw, {}


def _similarity(scored: _Scored) -> Reranked:
    (scores,) = scored.scores.values()
    return *per_caption(Ranking(scores, scores.T), scored.encoded.row_of_text), {}


def _diffusion(scored: _Scored) -> Reranked:
    settings, second = scored.settings, scored.settings.second
    if second is None:
        raise DataError(
            "needs a denoiser",
            where="rerank diffusion",
            fix="Give one, or leave diffusion out of rerank.",
        )
    t2v, v2t = second.rerank(scored.raw, scored.encoded.row_of_text, settings.seed, settings.world)
    return t2v, v2t, {"sampling": {"seed": settings.seed} | asdict(second.stage.settings)}


def _dsl(scored: _Scored) -> Reranked:
    scale = scored.settings.dsl_scale or (
        scored.model.scale if scored.model.scale > 1 else COSINE_SCALE
    )
    t2v, v2t = scored.raw
    factor = np.float32(scale)
    return (
        reranking.dsl_order(t2v * factor),
        reranking.dsl_order(v2t * factor),
        {"dsl_scale": scale},
    )


def _qbnorm(scored: _Scored) -> Reranked:
    settings, encoded, bank = scored.settings, scored.encoded, scored.settings.bank
    if bank is None:
        raise DataError(
            "needs a bank of other queries",
            where="rerank qbnorm",
            fix="Give one, or leave qbnorm out of rerank.",
        )
    # fused apart from the test queries: their scores must not depend on which bank was chosen
    of_texts = Encoded(
        bank.text, encoded.video, bank.row_of_text, bank.text_keys, encoded.video_keys
    )
    of_videos = Encoded(
        encoded.text, bank.video, encoded.row_of_text, encoded.text_keys, bank.video_keys
    )
    t2v_only = Fusion(of_texts.noise(settings.seed), v2t_rows=_NO_ROWS)
    v2t_only = Fusion(of_videos.noise(settings.seed), t2v_rows=_NO_ROWS)
    t2v_bank, _ = rankings(scored.model, of_texts, settings.budget, how=t2v_only)
    _, v2t_bank = rankings(scored.model, of_videos, settings.budget, how=v2t_only)
    options = {"beta": settings.beta, "k": settings.k, "theta": settings.theta}
    t2v = reranking.qb_norm(scored.raw[0], t2v_bank, **options)
    v2t = reranking.qb_norm(scored.raw[1], v2t_bank, **options)
    used = {"bank_texts": len(t2v_bank), "bank_videos": len(v2t_bank)}
    used |= {"normalised_texts": len(t2v.rows), "normalised_videos": len(v2t.rows)}
    return t2v.scores, v2t.scores, options | used


_RERANKERS = {
    "none": _none,
    SIMILARITY: _similarity,
    "dsl": _dsl,
    "qbnorm": _qbnorm,
    "diffusion": _diffusion,
}
