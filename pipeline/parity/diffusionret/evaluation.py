"""Handler of system "diffusionret", kind "evaluation": encode, score, sample for the best
candidates, add, rank.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.base import Fusion
from models.diffusion_ret.fast_sampling import Features
from models.diffusion_ret.model import DiffusionRet
from models.diffusion_ret.reranking import Sampled
from models.parts.noise import Direction
from pipeline.evaluation.metrics import count, summary
from pipeline.evaluation.retrieve import Encoded, encode_all, rankings, score
from pipeline.parity.case import Case
from pipeline.parity.compare import EXACT, Comparison, Tolerance, close, equal
from pipeline.parity.diffusionret.generation import table_rows
from pipeline.parity.diffusionret.model import batch_of, features, opened, same_sizes, tolerance_of

_BATCH = 5  # items encoded at once: any number gives the same
_PERCENT = Tolerance(1e-5)  # "exact", but kept as float32 in percent
_MEASURES = {"MR": "MdR", "MedianR": "MdR", "MeanR": "MnR"}


@dataclass(frozen=True)
class _Recorded:
    """Recorded noise: of each query, in the order of its candidates, best first."""

    t2v: np.ndarray
    v2t: np.ndarray

    def draw(self, direction: Direction, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        return getattr(self, direction)[queries, : candidates.shape[1]]


def evaluation(case: Case) -> Iterator[Comparison]:
    """Everything between pixels and metrics, in the recorded order of delivery."""
    model, batch = opened(case), batch_of(case.inputs)
    yield from same_sizes(case, model)
    yield from table_rows(case)
    encoded = _encoded(case, model, batch)
    similarity = score(model, encoded.text, encoded.video, budget=1 << 16)["similarity"]
    how = Fusion(_Recorded(case.inputs["noise_t2v"], case.inputs["noise_v2t"]))
    t2v, v2t = rankings(model, encoded, how=how)
    values: dict[str, object] = features(model, batch) | {"final_t2v": t2v, "final_v2t": v2t}
    for name, found in _samples(model, encoded, similarity, how).items():
        values |= {f"cand_{name}": found.candidates, f"sample_{name}": found.x}
    order = case.info["metric_order"]
    matrices = {
        "t2v": t2v,
        "v2t": v2t,
        "disc_t2v": similarity.numpy(),
        "disc_v2t": similarity.T.numpy(),
    }
    values |= {f"metrics_{name}": _metrics(matrix, order) for name, matrix in matrices.items()}
    for name, expected in case.outputs.items():
        yield close(name, values[name], expected, _tolerance(case, name))
    yield close(
        "sim_t2v[in blocks]", similarity, case.outputs["sim_t2v"], tolerance_of(case, "sim_t2v")
    )
    yield from _draws(case)


def _encoded(case: Case, model: DiffusionRet, batch: Mapping[str, Tensor]) -> Encoded:
    """As delivered: in the recorded order, what comes twice once."""
    order = list(dict.fromkeys(case.inputs["load_order"].tolist()))

    def batches(names: tuple[str, ...]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            yield part, {name: batch[name][part] for name in names}

    n = len(batch["text"])
    return encode_all(
        model, batches(("text", "text_mask")), batches(("frames", "video_mask")), np.arange(n), n
    )


def _samples(
    model: DiffusionRet, encoded: Encoded, similarity: Tensor, how: Fusion
) -> dict[str, Sampled]:
    """Return what the denoisers say of every query, before it is added."""
    text, video = model.second_stage.pick(encoded.text, encoded.video)
    seen = Features(text["sentence"], video["features"], video["real"])
    rows = torch.arange(len(similarity))
    sides = {"t2v": similarity, "v2t": similarity.T}
    return {
        name: model.second_stage.sample(name, scores, rows, seen, how)
        for name, scores in sides.items()
    }


def _metrics(scores: np.ndarray, order: list[str]) -> list[float]:
    values = summary(count(scores, np.arange(len(scores))).ranks("expanded"), median="mean")
    return [values[_MEASURES.get(name, name)] for name in order]


def _tolerance(case: Case, name: str) -> Tolerance:
    if name.startswith("cand_"):
        return EXACT
    return _PERCENT if name.startswith("metrics_") else tolerance_of(case, name)


def _draws(case: Case) -> Iterator[Comparison]:
    """Yield what the published program draws beside the noise it uses: one tensor per batch of
    queries and step.
    """
    if not {"reference_batch_rows", "unused_noise_draws"} <= set(case.info):
        return
    options, rows = case.info["options"], case.info["reference_batch_rows"]
    yield equal("reference_batch_rows", options["t2v_num"], rows)
    n_batches = 2 * -(-len(case.inputs["noise_t2v"]) // rows)
    yield equal(
        "unused_noise_draws",
        n_batches * options["diffusion_steps"],
        case.info["unused_noise_draws"],
    )


HANDLERS = {"evaluation": evaluation}
