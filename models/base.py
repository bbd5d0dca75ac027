"""What every retrieval model is: its inputs, its encodings, its scores, its losses; and the gather
across processes.

The pipeline knows models only through this file; a model knows nothing of
files, YAML or processes. Encoders take padded batches, so everything that depends on how many items
share a batch is the model's own affair (pooling rules); `score` and `fuse` work on whole encodings.

The gather rules are those of the published contrastive trainers (foolwood/DRL:
tvr/models/until_module.py; mzhaoshuai/CenterCLIP: modules/utils.py), plus the one under which N
processes equal one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.parts.noise import NoiseSource

if TYPE_CHECKING:
    from models.diffusion_ret.reranking import Features, Sampling

Encoding = dict[
    str, Tensor
]  # tensors that share dimension 0; so cat, index, gather and cache are one-liners
Batch = Mapping[str, Tensor]  # what the loader delivers; names and shapes at RetrievalModel
Shared = Mapping[str, Tensor]  # what `prepare` computes once for both encoders
GatherRule = Literal["full_gradient", "local_gradient"]


class Mismatch(ValueError):
    """Assets, weights or options do not fit the model. `fix` says what to do; the pipeline adds
    where.
    """

    def __init__(self, what: str, fix: str):
        super().__init__(f"{what}\n    {fix}")
        self.what, self.fix = what, fix


@dataclass(frozen=True)
class Inputs:
    """What the loader must deliver: the only contract between loader and model. 0 means no fixed
    length or size.
    """

    text: Literal["clip_bpe", "words"]
    video: Literal["frames", "features"]
    tokens: int = 0  # longest text, special tokens included
    frames: int = 0  # frames per video
    size: int = 0  # pixels, frames only
    tags: bool = False  # soft tag labels in training batches
    padding: Literal["repeat", "zero"] = "zero"


@dataclass(frozen=True)
class Assets:
    """What a model is built with besides its options; all optional, each model says what it
    needs.
    """

    n_words: int = 0  # rows of the word embedding, special tokens included
    n_tags: int = 0  # concepts: entries of the tag vocabulary
    feature_dim: int = 0  # numbers per frame
    word_vectors: np.ndarray | None = None  # (n_words, dim) float32, copied
    bag_columns: np.ndarray | None = (
        None  # (ids,) int64: where each word id counts in bags of words; -1: nowhere
    )
    clip: Mapping[str, Tensor] | None = (
        None  # weights of a CLIP under OpenAI's names: where its backbone starts
    )
    init: Mapping[str, Tensor] | None = None  # a state dict of this very model; strict
    # a training starts from `init`: it may lack what its stage of the training did not have
    is_start: bool = False


class Ranking(NamedTuple):
    """Final scores, higher is better, rows = queries: t2v (N_t, N_v) and v2t (N_v, N_t)."""

    t2v: Tensor
    v2t: Tensor


@dataclass(frozen=True)
class Fusion:
    """What `fuse` gets besides scores and encodings.

    noise: for models that sample; of a query it never depends on what else is ranked. rank,
    processes: all of them call `fuse` together and may share the work. t2v_rows, v2t_rows int64:
    the only rows that will be read; None: all.
    """

    noise: NoiseSource | None = None
    rank: int = 0
    processes: int = 1
    t2v_rows: np.ndarray | None = None
    v2t_rows: np.ndarray | None = None


class RetrievalModel(nn.Module):
    """A text encoder, a video encoder, scores that are separable and a fusion that is global.

    Batches map names to tensors: text (B, L) int64, text_mask (B, L) bool, video_mask (B, T) bool,
    and frames (B, T, S, S, 3) uint8 or features (B, T, F) float32. Training batches add what
    `targets` names. Masks are True for what is real, and real entries come first.
    """

    inputs: Inputs
    targets: tuple[str, ...] = (
        "video_index",
    )  # batch entries of the loss, one row per pair, gathered like encodings
    gather_rule: GatherRule = "full_gradient"
    pruned: Mapping[str, object] | None = (
        None  # {amount, weights, biases}: training keeps its zeros (pruning.py)
    )
    sampling: "Sampling | None" = None  # how a generative model re-ranks; evaluation may replace it

    def prepare(self) -> Shared:
        """What both encoders share and no batch changes: computed once per training step and once
        per evaluation.
        """
        return {}

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """The encoding of B texts; every tensor has B rows."""
        raise TypeError(f"{type(self).__name__} has no text encoder")

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """The encoding of B videos; every tensor has B rows."""
        raise TypeError(f"{type(self).__name__} has no video encoder")

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Named similarities (n_t, n_v), unscaled; entry (i, j) depends on text i and video j
        only.
        """
        raise TypeError(f"{type(self).__name__} has no score")

    def pair_bytes(self, text: Encoding, video: Encoding) -> int:
        """Bytes that `score` needs at its peak for each (text, video) pair: the evaluation sizes
        its blocks by it.
        """
        return 16

    @property
    def scale(self) -> float:
        """What a similarity is multiplied by to become a logit."""
        return 1.0

    def fuse(
        self, scores: Mapping[str, Tensor], text: Encoding, video: Encoding, how: Fusion = Fusion()
    ) -> Ranking:
        """The final scores of the whole gallery; by default the only score and its transpose."""
        (only,) = scores.values()
        return Ranking(only, only.T)

    def generative_features(self, text: Encoding, video: Encoding) -> "Features":
        """What denoisers see of the encodings of a generative model."""
        raise TypeError(f"{type(self).__name__} has no denoisers")

    def generate(self, scores: Ranking, features: "Features", how: Fusion) -> Ranking:
        """Similarities, of whatever model, re-ranked by the denoisers of a generative model."""
        raise TypeError(f"{type(self).__name__} has no denoisers")

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Named terms () and "loss", what to minimise. Row i of text and video is a matching
        pair.
        """
        raise TypeError(f"{type(self).__name__} cannot be trained")

    def check_batch(self, n: int) -> None:
        """Raise Mismatch if `loss` cannot work on n pairs (over all processes); asked before a
        training starts.
        """

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch over all processes: so a DDP wrapper sees them and no model writes
        a line on ranks.
        """
        shared = self.prepare()
        text = gather(self.encode_text(batch, shared), self.gather_rule)
        video = gather(self.encode_video(batch, shared), self.gather_rule)
        targets = gather(
            {name: batch[name] for name in self.targets if name in batch}, self.gather_rule
        )
        return self.loss(text, video, targets)


def load_init(model: RetrievalModel, assets: Assets) -> RetrievalModel:
    """The model, with the weights of `assets.init` if there are any. Raises Mismatch, naming all
    that does not fit.
    """
    if assets.init is None:
        return model
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in assets.init.items()}
    faults = [f"missing: {name} {own[name]}" for name in own.keys() - given.keys()]
    faults += [f"unknown: {name}" for name in given.keys() - own.keys()]
    faults += [
        f"{n} is {given[n]}, the model has {own[n]}"
        for n in own.keys() & given.keys()
        if own[n] != given[n]
    ]
    if faults:
        raise Mismatch(
            "the weights do not fit the model: " + "; ".join(sorted(faults)),
            "Use weights of a model with these options, this vocabulary and these features.",
        )
    model.load_state_dict(assets.init)
    return model


def gather(x: Encoding, rule: GatherRule = "full_gradient") -> Encoding:
    """The rows of all processes, in rank order; in one process `x` itself.

    Every rank then computes the same loss. `full_gradient` sums what all ranks send back to a row,
    so that with DDP's averaging N processes give the gradients of one; `local_gradient` (published)
    keeps the own rank's share only: what lies before the gather gets 1/N of it. Ranks may hold
    different numbers of rows; all other dimensions must agree.
    """
    if not x or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    first = next(iter(x.values()))
    counts = [
        torch.zeros(1, dtype=torch.int64, device=first.device) for _ in range(dist.get_world_size())
    ]
    dist.all_gather(counts, torch.tensor([len(first)], device=first.device))
    rows = [int(n) for n in counts]
    return {name: _Gather.apply(value, rows, rule) for name, value in x.items()}


def own_rows(n: int, device: torch.device | str = "cpu") -> tuple[int, int]:
    """Where the n rows of this process begin among the gathered ones, and how many processes there
    are.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return 0, 1
    counts = [
        torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())
    ]
    dist.all_gather(counts, torch.tensor([n], device=device))
    return sum(map(int, counts[: dist.get_rank()])), len(counts)


class _Gather(torch.autograd.Function):
    """(n, ...) of this rank -> (sum of rows, ...) of all."""

    @staticmethod
    def forward(ctx, x: Tensor, rows: list[int], rule: GatherRule) -> Tensor:
        ctx.rows, ctx.rule = rows, rule
        padded = x.new_zeros(max(rows), *x.shape[1:])  # collectives want equal shapes
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, rows, strict=True)])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        if ctx.rule == "full_gradient":
            grad = grad.contiguous().clone()
            dist.all_reduce(grad)
        start = sum(ctx.rows[: dist.get_rank()])
        return grad[start : start + ctx.rows[dist.get_rank()]], None, None
