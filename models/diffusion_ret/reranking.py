"""The second stage of a generative retrieval model: the best K candidates of each query, ordered
anew by sampling.

Paper: Jin et al. 2023, DiffusionRet, section 3.4. Published code: jpthu17/DiffusionRet;
docs/specs/diffusionret.md, section 8. Works on any matrix of similarities; the denoisers need a
sentence vector per text and a vector per frame.

Where we differ, and why:
- Noise belongs to a pair (models/parts/noise.py), the published draw depends on batches and on
  everything drawn before.
- Queries are shared out over processes; published, each process samples all of them.
- A gallery smaller than K is taken as a whole; the published code fails.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.base import Fusion, Mismatch, Ranking, gather
from models.diffusion_ret.denoiser import Denoiser
from models.diffusion_ret.fast_sampling import TextToVideo, VideoToText
from models.diffusion_ret.noising import Name, schedule
from models.parts.noise import Direction

_BLOCK_BYTES = {"cpu": 64 << 20}  # about 1,300 pairs of 12 frames of width 512: much more is slower
_DEVICE_BLOCK_BYTES = 1 << 30


@dataclass(frozen=True)
class Way:
    """One direction. candidates K per query; added to a similarity: alpha * softmax over K of
    factor * x.
    """

    candidates: int = 32
    factor: float = 1.0
    alpha: float = 1.0


@dataclass(frozen=True)
class Sampling:
    """How a generative model ranks. steps: of the schedule's `diffusion_steps` how many are taken;
    None: all.
    """

    schedule: Name = "cosine"
    diffusion_steps: int = 50
    steps: int | None = None
    t2v: Way = Way()
    v2t: Way = Way()


class Features(NamedTuple):
    """What denoisers see: text (N_t, D), not normalised; frames (N_v, T, D), padded ones too; real
    (N_v, T).
    """

    text: Tensor
    frames: Tensor
    real: Tensor


class Sampled(NamedTuple):
    """candidates int64 (n, K), best first; x (n, K) in [-1, 1]; on the CPU."""

    candidates: Tensor
    x: Tensor


@torch.inference_mode()
def reranked(
    scores: Ranking,
    features: Features,
    denoisers: tuple[Denoiser, Denoiser],
    sampling: Sampling,
    how: Fusion,
) -> Ranking:
    """Similarities plus what sampling says of the best candidates of each row, both ways, float32
    on the CPU.

    denoisers: text -> video, video -> text. Queries that `how` does not ask for keep their
    similarities. Raises Mismatch if the features are not those of the denoisers, or the plan does
    not fit the schedule.
    """
    check_features(features, denoisers[0].width)
    result = Ranking(
        *(side.cpu().float().clone(memory_format=torch.contiguous_format) for side in scores)
    )
    asked = how.t2v_rows, how.v2t_rows
    ways: tuple[Direction, Direction] = ("t2v", "v2t")
    for direction, own, wanted, denoiser in zip(ways, result, asked, denoisers, strict=True):
        rows = torch.from_numpy(np.arange(len(own)) if wanted is None else wanted)
        if len(rows):
            way = getattr(sampling, direction)
            found = sampled(direction, own, rows, features, denoiser, sampling, how)
            own[rows] = own[rows].scatter_add(
                1, found.candidates, way.alpha * (way.factor * found.x).softmax(1)
            )
    return result


@torch.inference_mode()
def sampled(
    direction: Direction,
    scores: Tensor,
    rows: Tensor,
    features: Features,
    denoiser: Denoiser,
    sampling: Sampling,
    how: Fusion,
) -> Sampled:
    """x of the best candidates of some rows int64 (n,) of scores (N, M), rows = queries. Each
    process samples a share.

    Blocks always hold as many queries, a power of 2, and the last one repeats a query: the rounding
    of a product depends on its shape.
    """
    if how.noise is None:
        raise Mismatch(
            "sampling without a source of noise",
            "Give `fuse` a Fusion with one (models/parts/noise.py).",
        )
    device = denoiser.proj.weight.device
    k = min((sampling.t2v if direction == "t2v" else sampling.v2t).candidates, scores.shape[1])
    plan = schedule(sampling.schedule, sampling.diffusion_steps, sampling.steps)
    kind = TextToVideo if direction == "t2v" else VideoToText
    sampler = kind(denoiser, plan, *(part.to(device) for part in features), n_pairs=len(rows) * k)
    most = max(
        1,
        _BLOCK_BYTES.get(device.type, _DEVICE_BLOCK_BYTES)
        // (k * _pair_bytes(features, len(plan))),
    )
    size = 1 << (most.bit_length() - 1)
    first, last = (len(rows) * rank // how.processes for rank in (how.rank, how.rank + 1))
    candidates = torch.empty(last - first, k, dtype=torch.int64)
    x = torch.empty(last - first, k)
    for start in range(first, last, size):
        block = rows[torch.arange(start, start + size).clamp(max=last - 1)]
        best = best_candidates(scores[block].to(device), k)
        noise = torch.from_numpy(how.noise.draw(direction, block.numpy(), best.cpu().numpy())).to(
            device
        )
        n, at = min(size, last - start), start - first
        x[at : at + n] = sampler(block.to(device), best, noise)[:n].cpu()
        candidates[at : at + n] = best[:n].cpu()
    if how.processes > 1:
        x, candidates = (
            part.cpu() for part in gather({"x": x.to(device), "c": candidates.to(device)}).values()
        )
    return Sampled(candidates, x)


def _pair_bytes(features: Features, steps: int) -> int:
    """What sampling holds of a pair at its peak: its frames, and three times what they are
    projected to.
    """
    _, n_frames, width = features.frames.shape
    return 4 * (n_frames * width + 3 * (4 * width + steps))


def best_candidates(scores: Tensor, k: int) -> Tensor:
    """Columns of the k largest scores of each row, best first, int64 (B, k); of equal ones the
    first.
    """
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :k]


def check_features(features: Features, width: int) -> None:
    """Mismatch unless the features have the width of a denoiser."""
    found = {"sentences": features.text.shape[-1], "frames": features.frames.shape[-1]}
    wrong = [f"{name} of width {size}" for name, size in found.items() if size != width]
    if wrong:
        raise Mismatch(
            f"{' and '.join(wrong)} for a denoiser of width {width}",
            "Let the denoiser's own feature extractor encode the split.",
        )
