"""The second stage of DiffusionRet: order the best K candidates of each query anew, by sampling.

Paper: Jin et al. 2023, DiffusionRet, section 3.4. Published code: jpthu17/DiffusionRet;
docs/specs/diffusionret.md, section 8. It works on any matrix of similarities; the denoisers need a
sentence vector per text and a vector per frame.

Where we differ, and why:
- Noise belongs to a pair (models/parts/noise.py); the published draw depends on batches and on
  everything drawn before.
- Processes share the queries; in the published code each of them samples all queries.
- A gallery smaller than K is taken as a whole; the published code fails.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from models.base import Encoding, Fusion, Mismatch, Ranking, gather
from models.diffusion_ret.fast_sampling import Features
from models.diffusion_ret.noising import Name, NoiseSchedule, schedule
from models.parts.noise import Direction

_BLOCK_BYTES = {"cpu": 64 << 20}  # about 1,300 pairs of 12 frames of width 512: much more is slower
_DEVICE_BLOCK_BYTES = 1 << 30
_SENTENCES = ("sentence", "vector")  # what encodings call a vector of the whole text
_FRAMES = ("features", "frames")  # what they call a vector of each frame


@dataclass(frozen=True)
class Way:
    """How one direction re-ranks K candidates of a query.

    It adds alpha * softmax over K of factor * x to their similarities.
    """

    candidates: int = 32
    factor: float = 1.0
    alpha: float = 1.0


@dataclass(frozen=True)
class SamplingSettings:
    """How the second stage ranks. steps: how many of the `diffusion_steps` are taken, else all."""

    schedule: Name = "cosine"
    diffusion_steps: int = 50
    steps: int | None = None
    t2v: Way = Way()
    v2t: Way = Way()

    def plan(self) -> NoiseSchedule:
        """Return the steps of the chain. Raises Mismatch if the schedule does not have them."""
        return schedule(self.schedule, self.diffusion_steps, self.steps)

    def way(self, direction: Direction) -> Way:
        """Return the settings of one direction."""
        return self.t2v if direction == "t2v" else self.v2t


class Sampled(NamedTuple):
    """candidates int64 (n, K), best first; x (n, K) in [-1, 1]; on the CPU."""

    candidates: Tensor
    x: Tensor


class Sampler(Protocol):
    """Samples for some queries of one direction. pair_bytes: memory for one pair."""

    pair_bytes: int

    def __call__(self, queries: Tensor, candidates: Tensor, noise: Tensor) -> Tensor:
        """queries int64 (B,), candidates int64 (B, K), noise (B, K) -> x (B, K) in [-1, 1]."""


class SamplingNetwork(Protocol):
    """What a denoiser must offer to re-rank: the width D of its features, and a sampler."""

    width: int

    def parameters(self) -> Iterator[Tensor]:
        """Its weights (any shapes); the first one tells the device."""

    def sampler(
        self, direction: Direction, plan: NoiseSchedule, features: Features, n_pairs: int
    ) -> Sampler:
        """Return a sampler over all texts and videos, which will sample n_pairs pairs."""


class DenoisingStage:
    """The second stage of a model with two denoisers, text -> video and video -> text.

    It holds no weights of its own: the denoisers belong to the model. See `SecondStage` in base.py.
    """

    def __init__(self, t2v: SamplingNetwork, v2t: SamplingNetwork, settings: SamplingSettings):
        self.denoisers: dict[Direction, SamplingNetwork] = {"t2v": t2v, "v2t": v2t}
        self.settings = settings

    def configure(self, changes: Mapping[str, object]) -> None:
        """Change settings: steps, and {t2v, v2t}_{candidates, factor, alpha}.

        Raises Mismatch if the schedule has fewer steps.
        """
        settings = replace(
            self.settings,
            steps=changes.get("steps", self.settings.steps),
            t2v=_changed_way(self.settings.t2v, "t2v", changes),
            v2t=_changed_way(self.settings.v2t, "v2t", changes),
        )
        settings.plan()
        self.settings = settings

    def pick(self, text: Encoding, video: Encoding) -> tuple[Encoding, Encoding]:
        """Return {"sentence" (N_t, D)} and {"features" (N_v, T, D), "real" (N_v, T)}.

        Of another model, "vector" is taken for a sentence and "frames" for features. Raises
        Mismatch if one of them is missing.
        """
        sentence = next((text[name] for name in _SENTENCES if name in text), None)
        frames = next((video[name] for name in _FRAMES if name in video), None)
        if sentence is None or frames is None or "real" not in video:
            raise Mismatch(
                f"a text is encoded as {', '.join(text)} and a video as {', '.join(video)}: no"
                " sentence and frames",
                "Let the denoiser's own feature extractor encode the split.",
            )
        return {"sentence": sentence}, {"features": frames, "real": video["real"]}

    @torch.inference_mode()
    def rerank(self, scores: Ranking, text: Encoding, video: Encoding, how: Fusion) -> Ranking:
        """Return similarities plus what sampling says of the best candidates of each row.

        scores: t2v (N_t, N_v), v2t (N_v, N_t); text and video: as `pick` returns them. float32 on
        the CPU. Queries that `how` does not ask for keep their similarities. Raises Mismatch if the
        features are not those of the denoisers, if the plan does not fit the schedule, or if `how`
        has no noise.
        """
        features = Features(text["sentence"], video["features"], video["real"])
        _check_width(features, self.denoisers["t2v"].width)
        return Ranking(
            t2v=self._rerank_side("t2v", scores.t2v, how.t2v_rows, features, how),
            v2t=self._rerank_side("v2t", scores.v2t, how.v2t_rows, features, how),
        )

    def _rerank_side(
        self,
        direction: Direction,
        scores: Tensor,
        wanted: np.ndarray | None,
        features: Features,
        how: Fusion,
    ) -> Tensor:
        """Return one direction of `rerank`: a copy of scores (N, M), the wanted rows of it
        changed.
        """
        result = scores.cpu().float().clone(memory_format=torch.contiguous_format)
        rows = torch.from_numpy(np.arange(len(result)) if wanted is None else wanted)
        if not len(rows):
            return result
        way = self.settings.way(direction)
        found = self.sample(direction, result, rows, features, how)
        gain = way.alpha * (way.factor * found.x).softmax(1)  # (n, K)
        result[rows] = result[rows].scatter_add(1, found.candidates, gain)
        return result

    @torch.inference_mode()
    def sample(
        self,
        direction: Direction,
        scores: Tensor,
        rows: Tensor,
        features: Features,
        how: Fusion,
    ) -> Sampled:
        """Return x of the best candidates of the rows int64 (n,) of scores (N, M).

        Rows are queries; each process samples a share of them. Raises Mismatch without noise.
        """
        if how.noise is None:
            raise Mismatch(
                "sampling without a source of noise",
                "Give `fuse` a Fusion with one (models/parts/noise.py).",
            )
        denoiser = self.denoisers[direction]
        device = next(denoiser.parameters()).device
        k = min(self.settings.way(direction).candidates, scores.shape[1])
        on_device = Features(*(part.to(device) for part in features))
        sampler = denoiser.sampler(
            direction, self.settings.plan(), on_device, n_pairs=len(rows) * k
        )
        first = len(rows) * how.rank // how.processes
        last = len(rows) * (how.rank + 1) // how.processes
        size = _block_size(device, k * sampler.pair_bytes)
        candidates = torch.empty(last - first, k, dtype=torch.int64)
        x = torch.empty(last - first, k)
        for start in range(first, last, size):
            # all blocks have one size (the last repeats a query): rounding depends on the shape
            block = rows[torch.arange(start, start + size).clamp(max=last - 1)]  # (size,)
            best = best_candidates(scores[block].to(device), k)  # (size, K)
            noise = how.noise.draw(direction, block.numpy(), best.cpu().numpy())
            drawn = sampler(block.to(device), best, torch.from_numpy(noise).to(device))
            n = min(size, last - start)
            place = slice(start - first, start - first + n)
            x[place] = drawn[:n].cpu()
            candidates[place] = best[:n].cpu()
        if how.processes == 1:
            return Sampled(candidates, x)
        of_all = gather({"x": x.to(device), "candidates": candidates.to(device)})
        return Sampled(of_all["candidates"].cpu(), of_all["x"].cpu())


def best_candidates(scores: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest of each row of scores (B, M), best first, int64 (B, k).

    Ties go to the lowest column.
    """
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :k]


def _changed_way(way: Way, direction: str, changes: Mapping[str, object]) -> Way:
    names = {name: f"{direction}_{name}" for name in vars(way)}
    found = {name: changes[full] for name, full in names.items() if full in changes}
    return replace(way, **found)


def _block_size(device: torch.device, query_bytes: int) -> int:
    """Queries per block: a power of 2, at least 1, that fits the memory of the device."""
    budget = _BLOCK_BYTES.get(device.type, _DEVICE_BLOCK_BYTES)
    most = max(1, budget // query_bytes)
    return 1 << (most.bit_length() - 1)


def _check_width(features: Features, width: int) -> None:
    """Raise Mismatch unless the features have the width of a denoiser."""
    found = {"sentences": features.text.shape[-1], "frames": features.frames.shape[-1]}
    wrong = [f"{name} of width {size}" for name, size in found.items() if size != width]
    if wrong:
        raise Mismatch(
            f"{' and '.join(wrong)} for a denoiser of width {width}",
            "Let the denoiser's own feature extractor encode the split.",
        )
