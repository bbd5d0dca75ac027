"""The contract of a retrieval model: inputs, encodings, scores, losses; and the gather.

The pipeline knows models only through this file; a model knows nothing of files, YAML or
processes. Encoders take padded batches, so a model decides alone how padding enters an encoding
(its pooling rules). `score` compares encodings pair by pair; `fuse` sees the whole gallery.

The gather rules are those of the published contrastive trainers (foolwood/DRL:
tvr/models/until_module.py; mzhaoshuai/CenterCLIP: modules/utils.py), plus the one under which N
processes equal one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.parts.noise import NoiseSource

Encoding = dict[str, Tensor]  # tensors that share dimension 0: so cat, index, gather are one-liners
Batch = Mapping[str, Tensor]  # what the loader delivers; names and shapes at RetrievalModel
Shared = Mapping[str, Tensor]  # what `prepare` computes once for both encoders
GatherRule = Literal["full_gradient", "local_gradient"]
Padding = Literal["repeat", "zero"]  # what stands behind the real frames of a video


class Mismatch(ValueError):
    """Assets, weights or options do not fit the model.

    `what` is wrong, `fix` says what to do about it; the pipeline adds where it happened.
    """

    def __init__(self, what: str, fix: str):
        super().__init__(f"{what}\n    {fix}")
        self.what = what
        self.fix = fix


@dataclass(frozen=True)
class Inputs:
    """What the loader must deliver. 0 means that there is no fixed length or size."""

    text: Literal["clip_bpe", "words"]
    video: Literal["frames", "features"]
    tokens: int = 0  # longest text, special tokens included
    frames: int = 0  # frames per video
    size: int = 0  # pixels, frames only
    tags: bool = False  # soft tag labels in training batches
    padding: Padding = "zero"


@dataclass(frozen=True)
class Assets:
    """What a model is built with besides its options; every model names the ones it needs."""

    n_words: int = 0  # rows of the word embedding, special tokens included
    n_tags: int = 0  # concepts: entries of the tag vocabulary
    feature_dim: int = 0  # numbers per frame
    # (n_words, dim) float32, copied
    word_vectors: np.ndarray | None = None
    # (ids,) int64: the column of each word id in bags of words; -1: in none
    bag_columns: np.ndarray | None = None
    # weights of a CLIP under OpenAI's names: where the backbone starts
    clip: Mapping[str, Tensor] | None = None
    # a state dict of this very model; every name and shape must fit
    init: Mapping[str, Tensor] | None = None
    # a training run starts from `init`: it may lack what its stage did not have
    is_start: bool = False


class Ranking(NamedTuple):
    """Final scores, higher is better, rows = queries: t2v (N_t, N_v) and v2t (N_v, N_t)."""

    t2v: Tensor
    v2t: Tensor


@dataclass(frozen=True)
class Fusion:
    """What `fuse` gets besides scores and encodings."""

    # for models that sample: the noise of a pair never depends on what else is ranked
    noise: NoiseSource | None = None
    # all processes call `fuse` together and may share its work; this one is `rank`
    rank: int = 0
    processes: int = 1
    # int64 (n,): the only rows of the result that will be read; None: all of them
    t2v_rows: np.ndarray | None = None
    v2t_rows: np.ndarray | None = None
    # what `RetrievalModel.statistics` says of another matrix; None: `fuse` takes those of its own
    statistics: Mapping[str, float] | None = None


class SecondStage(Protocol):
    """What re-ranks the best candidates of a ranking, which may be that of another model."""

    settings: object  # a dataclass of numbers and names: how it re-ranks, as a report prints it

    def configure(self, changes: Mapping[str, object]) -> None:
        """Change the settings. Raises Mismatch if its weights do not allow them."""

    def pick(self, text: Encoding, video: Encoding) -> tuple[Encoding, Encoding]:
        """Return the parts that `rerank` reads of encodings (N_t rows, N_v rows) of any model.

        Raises Mismatch if the encodings lack one.
        """

    def rerank(self, scores: Ranking, text: Encoding, video: Encoding, how: Fusion) -> Ranking:
        """Return the ranking after the second look, float32 on the CPU.

        scores: t2v (N_t, N_v), v2t (N_v, N_t); text and video: as `pick` returns them. Rows that
        `how` does not ask for keep their scores. Raises Mismatch if something does not fit.
        """


class RetrievalModel(nn.Module):
    """A text encoder, a video encoder, a score for each pair, and a fusion of the whole gallery.

    Batches map names to tensors: text (B, L) int64, text_mask (B, L) bool, video_mask (B, T) bool,
    and frames (B, T, S, S, 3) uint8 or features (B, T, F) float32. Training batches add what
    `targets` names. Masks are True for what is real, and real entries come first.
    """

    inputs: Inputs
    # batch entries that the loss reads, one row per pair; they are gathered as encodings are
    targets: tuple[str, ...] = ("video_index",)
    gather_rule: GatherRule = "full_gradient"
    # {amount, weights, biases} of a pruned model: training keeps its zeros (parts/pruning.py)
    pruned: Mapping[str, object] | None = None
    # what re-ranks the model's own scores in `fuse`, and any other model's scores on request
    second_stage: SecondStage | None = None
    # products of `summary` are the score, choose candidates for it, or there are no summaries
    summaries: Literal["score", "candidates", "none"] = "none"

    def prepare(self) -> Shared:
        """Return what both encoders share and no batch changes.

        It is computed once per training step and once per evaluation.
        """
        return {}

    def encode_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return the encoding of B texts: tensors (B, ...) by name.

        Raises TypeError if the model has no text encoder.
        """
        raise TypeError(f"{type(self).__name__} has no text encoder")

    def encode_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return the encoding of B videos: tensors (B, ...) by name.

        Raises TypeError if the model has no video encoder.
        """
        raise TypeError(f"{type(self).__name__} has no video encoder")

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        """Return named similarities (n_t, n_v), not scaled.

        Entry (i, j) depends on text i and video j only. Raises TypeError if the model has no score.
        """
        raise TypeError(f"{type(self).__name__} has no score")

    def pair_bytes(self, text: Encoding, video: Encoding) -> int:
        """Return the bytes that `score` needs at its peak for each pair of a text and a video.

        The evaluation chooses its blocks (n_t, n_v) by it.
        """
        return 16

    @property
    def scale(self) -> float:
        """The factor that turns a similarity into a logit."""
        return 1.0

    def fuse(
        self, scores: Mapping[str, Tensor], text: Encoding, video: Encoding, how: Fusion = Fusion()
    ) -> Ranking:
        """Return the final scores of the whole gallery: here the only score and its transpose.

        scores: matrices (N_t, N_v) by name; text and video: encodings of N_t and N_v rows.
        """
        (only,) = scores.values()
        return Ranking(only, only.T)

    def statistics(self, scores: Mapping[str, Tensor]) -> dict[str, float]:
        """Return what `fuse` takes from a whole matrix of scores: with it one query alone is fused
        as it was in the matrix. Empty where the rows of a fusion do not depend on each other.
        """
        return {}

    def summary(self, encoding: Encoding, query: Mapping[str, float] | None = None) -> Tensor:
        """Return one vector per text or video, (n, S) float32; `summaries` says what products mean.

        query: the statistics of the fusion, where the encoding is what is asked for. Without them
        it is what is searched, which must not depend on them. Raises TypeError if `summaries` is
        "none".
        """
        raise TypeError(f"{type(self).__name__} has no summary")

    def similar(self, video: Encoding, others: Encoding, statistics: Mapping[str, float]) -> Tensor:
        """Return how alike videos are, (n, m), by the comparison that texts and videos have."""
        return self.fuse(
            self.score(video, others), video, others, Fusion(statistics=statistics)
        ).t2v

    def loss(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Return named terms () and "loss", what to minimise. Row i of both sides is a pair.

        Raises TypeError if the model cannot be trained.
        """
        raise TypeError(f"{type(self).__name__} cannot be trained")

    def check_batch(self, n: int) -> None:
        """Raise Mismatch if `loss` cannot work on n pairs, those of all processes together.

        A training run asks before it starts.
        """

    def read_text(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return what training makes of each text alone: tensors (B, ...), the encoding by default.

        A row depends on its own text, so that a batch may be read in parts.
        """
        return self.encode_text(batch, shared)

    def read_video(self, batch: Batch, shared: Shared | None = None) -> Encoding:
        """Return what training makes of each video alone: tensors (B, ...), the encoding by
        default.
        """
        return self.encode_video(batch, shared)

    def losses(self, text: Encoding, video: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Return the losses () of what was read of a whole batch, over all processes.

        text and video: B rows of this process, as `read_text` and `read_video` return them.
        """
        text = gather(text, self.gather_rule)
        video = gather(video, self.gather_rule)
        targets = {name: batch[name] for name in self.targets if name in batch}
        return self.loss(text, video, gather(targets, self.gather_rule))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses () of a batch of B pairs per process, over all processes.

        A DDP wrapper sees this call, and no model writes a line on ranks.
        """
        shared = self.prepare()
        text = self.read_text(batch, shared)
        video = self.read_video(batch, shared)
        return self.losses(text, video, batch)


def load_init(model: RetrievalModel, assets: Assets) -> RetrievalModel:
    """Return the model, with the weights of `assets.init` if there are any.

    Raises Mismatch that names every weight which does not fit.
    """
    if assets.init is None:
        return model
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in assets.init.items()}
    faults = [f"missing: {name} {own[name]}" for name in own.keys() - given.keys()]
    faults += [f"unknown: {name}" for name in given.keys() - own.keys()]
    for name in own.keys() & given.keys():
        if own[name] != given[name]:
            faults.append(f"{name} is {given[name]}, the model has {own[name]}")
    if faults:
        raise Mismatch(
            "the weights do not fit the model: " + "; ".join(sorted(faults)),
            "Use weights of a model with these options, this vocabulary and these features.",
        )
    model.load_state_dict(assets.init)
    return model


def gather(x: Encoding, rule: GatherRule = "full_gradient") -> Encoding:
    """Return the rows (N, ...) of all processes, in rank order; in one process `x` (n, ...) itself.

    Every rank then computes the same loss. `full_gradient` sums what all ranks send back to a row,
    so that with DDP's averaging N processes give the gradients of one. `local_gradient` (published)
    keeps the own rank's share only, so what lies before the gather gets 1/N of it. Ranks may hold
    different numbers of rows; all other dimensions must agree.
    """
    if not x or _n_processes() == 1:
        return x
    first = next(iter(x.values()))
    rows = _rows_of_each(len(first), first.device)
    return {name: _Gather.apply(value, rows, rule) for name, value in x.items()}


def own_rows(n: int, device: torch.device | str = "cpu") -> tuple[int, int]:
    """Return where the n rows of this process begin among all (N,), and the number of processes."""
    if _n_processes() == 1:
        return 0, 1
    rows = _rows_of_each(n, device)
    return sum(rows[: dist.get_rank()]), len(rows)


def _n_processes() -> int:
    is_alone = not (dist.is_available() and dist.is_initialized())
    return 1 if is_alone else dist.get_world_size()


def _rows_of_each(n: int, device: torch.device | str) -> list[int]:
    """Return how many rows each process holds, in rank order; this one holds n."""
    counts = [
        torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())
    ]
    dist.all_gather(counts, torch.tensor([n], device=device))
    return [int(count) for count in counts]


class _Gather(torch.autograd.Function):
    """Join the rows of all ranks: (n, ...) of this one become (sum of rows, ...)."""

    @staticmethod
    def forward(ctx, x: Tensor, rows: list[int], rule: GatherRule) -> Tensor:
        """x (n, ...) -> (sum of rows, ...)."""
        ctx.rows = rows
        ctx.rule = rule
        padded = x.new_zeros(max(rows), *x.shape[1:])  # collectives want equal shapes
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, rows, strict=True)])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        """grad (sum of rows, ...) -> (n, ...) of this rank."""
        if ctx.rule == "full_gradient":
            grad = grad.contiguous().clone()
            dist.all_reduce(grad)
        rank = dist.get_rank()
        start = sum(ctx.rows[:rank])
        return grad[start : start + ctx.rows[rank]], None, None
