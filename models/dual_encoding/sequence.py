"""Variable-length sequences: GRU, convolutions over time and pooling, without work on padding.

Paper: Dual Encoding for Video Retrieval by Text (Dong et al., TPAMI 2021), sections 3.1 and 3.2:
levels 2 and 3 of both encoders. Published code: dongYoun2/dual-encoding-system: model.py;
danieljf24/hybrid_space: model.py.

Differs from it only in how, except where `masked` says otherwise (padding takes no part in means
and maxima):
- The GRU sees packed steps (models/dual_encoding/recurrence.py); the convolutions see sequences in
  chunks of similar length, not the whole padding.
- Only one position per filter and sequence survives the maximum, so the backward pass of
  convolution + maximum is a gather of those few windows and costs a fraction of two dense
    convolutions (CPU; GPUs take the dense way).
- ReLU is applied after the maximum: the same values and gradients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.dual_encoding.recurrence import run_gru

_CHUNK = 32  # sequences that share a padded length
Padding = Literal["same", "full"]
Pool = Literal["mean", "padded_mean", "max"]


@dataclass(frozen=True)
class Kernel:
    """One convolution: its width, and how many zero rows its windows may touch on each side."""

    width: int
    before: int
    after: int

    def outputs(self, length: int | Tensor) -> int | Tensor:
        """Return the number of windows over a sequence of `length` steps, or over each of (N,)."""
        return length + self.before + self.after - self.width + 1

    @classmethod
    def of(cls, width: int, padding: Padding) -> "Kernel":
        """Return the kernel of a width.

        same: as many windows as steps, the odd zero row of even widths last. full: every window
        that touches the sequence.
        """
        before = (width - 1) // 2 if padding == "same" else width - 1
        return cls(width, before, width - 1 - before if padding == "same" else width - 1)


class Chunk(NamedTuple):
    """Consecutive sequences of the table: `items` blocks of `rows` rows each, from `start` on."""

    start: int
    items: int
    rows: int
    length: int


@dataclass(frozen=True)
class Steps:
    """Where the real steps of a padded batch lie: packed for a GRU, in a table for convolutions.

    The table holds the sequences longest first, each with `before` zero rows, its steps, and zero
    rows behind, so that a window never reaches a neighbour. N steps, B sequences, R rows of the
    table.
    """

    order: Tensor  # (B,) sequences, longest first
    lengths: Tensor  # (B,) steps of each, in that order
    batch_sizes: Tensor  # (longest,) on the CPU: sequences that have a step t
    source: Tensor  # (N,) packed steps as rows of the flattened padded batch
    slot: Tensor  # (N,) packed steps as rows of the table
    chunks: tuple[Chunk, ...]
    before: int  # zero rows before each sequence in the table
    padded_length: int  # L of the batch
    masked: bool

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        last = self.chunks[-1]
        return last.start + last.items * last.rows

    @classmethod
    def of(cls, mask: Tensor, kernels: Sequence[Kernel], masked: bool) -> "Steps":
        """Return the steps of mask (B, L) bool, True first. A sequence without any counts as one.

        masked: blocks of a chunk are as long as its longest sequence. Otherwise they go on as far
        as a window can touch it, and what lies beyond is known: windows of zeros.
        """
        before = max((kernel.before for kernel in kernels), default=0)
        after = max((kernel.after for kernel in kernels), default=0)
        lengths = mask.sum(1).clamp(min=1).cpu()
        lengths, order = lengths.sort(descending=True, stable=True)
        has_step = torch.arange(int(lengths[0]))[:, None] < lengths  # (longest, B)
        time, item = has_step.nonzero().unbind(1)  # in packed order
        chunks = []
        starts = torch.empty_like(lengths)
        start = 0
        for first in range(0, len(lengths), _CHUNK):
            members = lengths[first : first + _CHUNK]
            longest = int(members[0])
            length = longest if masked else min(mask.shape[1], longest + before)
            chunks.append(Chunk(start, len(members), before + length + after, length))
            starts[first : first + _CHUNK] = start + torch.arange(len(members)) * chunks[-1].rows
            start += chunks[-1].items * chunks[-1].rows
        device = mask.device
        return cls(
            order=order.to(device),
            lengths=lengths.to(device),
            batch_sizes=torch.bincount(time),
            source=(order[item] * mask.shape[1] + time).to(device),
            slot=(starts[item] + before + time).to(device),
            chunks=tuple(chunks),
            before=before,
            padded_length=mask.shape[1],
            masked=masked,
        )

    def table(self, packed: Tensor, elsewhere: float = 0.0) -> Tensor:
        """Return packed steps (N, C) as the table (R, C)."""
        return packed.new_full((self.n_rows, packed.shape[1]), elsewhere).index_copy(
            0, self.slot, packed
        )

    def mean(self, table: Tensor, over_padding: bool) -> Tensor:
        """Return means of the table (R, C) over time, (B, C), longest first.

        Sums are divided by the true length, or by the padded length of the batch.
        """
        length = self.padded_length if over_padding else self.lengths[:, None]
        return self._reduce(table, Tensor.sum) / length

    def maximum(self, packed: Tensor) -> Tensor:
        """Return maxima of packed steps (N, C) over time, (B, C), longest first.

        Without `masked` the zeros of padding take part.
        """
        strongest = self._reduce(self.table(packed, -torch.inf), Tensor.amax)
        if self.masked:
            return strongest
        has_padding = self.lengths[:, None] < self.padded_length
        return torch.where(has_padding, strongest.clamp(min=0), strongest)

    def _reduce(self, table: Tensor, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
        parts = table.split([chunk.items * chunk.rows for chunk in self.chunks])
        blocks = [
            part.unflatten(0, (c.items, c.rows)) for part, c in zip(parts, self.chunks, strict=True)
        ]
        return torch.cat([reduce(block, 1) for block in blocks])

    def restore(self, rows: Tensor) -> Tensor:
        """Return rows (B, ...) that stand longest first, in the order of the batch."""
        return torch.empty_like(rows).index_copy(0, self.order, rows)


class SequenceEncoder(nn.Module):
    """Levels 2 and 3: a GRU pooled over time, and the largest response of each filter to it.

    Packed steps (N, F) -> (B, width_gru) and (B, width_conv), in the order of the batch.
    """

    def __init__(
        self,
        dim: int,
        rnn: int,
        bidirectional: bool,
        convs: Sequence[tuple[int, int]],
        padding: Padding = "same",
    ):
        """convs: width and number of filters of each convolution."""
        super().__init__()
        self.gru = nn.GRU(dim, rnn, bidirectional=bidirectional)
        hidden = rnn * (2 if bidirectional else 1)
        self.convs = nn.ModuleList(nn.Conv1d(hidden, filters, width) for width, filters in convs)
        self.kernels = tuple(Kernel.of(width, padding) for width, _ in convs)
        self.width_gru = hidden
        self.width_conv = sum(filters for _, filters in convs)
        self.width = self.width_gru + self.width_conv

    def forward(self, packed: Tensor, steps: Steps, pool: Pool = "mean") -> tuple[Tensor, Tensor]:
        """Return both levels, (B, width_gru) and (B, width_cnn), of packed steps (N, width_in)."""
        return self.levels(self.hidden(packed, steps), steps, pool)

    def levels(self, hidden: Tensor, steps: Steps, pool: Pool = "mean") -> tuple[Tensor, Tensor]:
        """Return both levels from GRU outputs of the packed steps, (N, width_gru)."""
        table = steps.table(hidden)  # (R, width_gru)
        pooled = (
            steps.maximum(hidden) if pool == "max" else steps.mean(table, pool == "padded_mean")
        )
        return steps.restore(pooled), steps.restore(self.responses(table, steps))

    def hidden(self, packed: Tensor, steps: Steps) -> Tensor:
        """GRU outputs of the packed steps, (N, width_gru)."""
        return run_gru(self.gru, packed, steps.batch_sizes)

    def responses(self, table: Tensor, steps: Steps) -> Tensor:
        """ReLU of the largest response of each filter, (B, width_conv), longest first."""
        weights = [conv.weight for conv in self.convs]
        strongest = (_dense_peaks if table.is_cuda else _Peaks.apply)(
            table, steps, self.kernels, *weights
        )
        if (
            not steps.masked
        ):  # the windows beyond the tables hold zeros only, so they respond with 0
            beyond = [
                chunk.length < steps.padded_length
                for chunk in steps.chunks
                for _ in range(chunk.items)
            ]
            floor = torch.where(torch.tensor(beyond), 0.0, -torch.inf).to(strongest)
            strongest = torch.maximum(strongest, floor[:, None])
        return torch.relu(strongest + torch.cat([conv.bias for conv in self.convs]))


def _windows(table: Tensor, chunk: Chunk, kernel: Kernel, before: int) -> Tensor:
    """Return the rows of a chunk that the windows of a kernel cover, (items, C, time), a view."""
    part = table[chunk.start : chunk.start + chunk.items * chunk.rows].unflatten(
        0, (chunk.items, chunk.rows)
    )
    skip = before - kernel.before
    return part[:, skip : skip + kernel.outputs(chunk.length) + kernel.width - 1].transpose(1, 2)


def _responses(
    table: Tensor, steps: Steps, kernel: Kernel, weight: Tensor, first: int, chunk: Chunk
) -> Tensor:
    """Responses (items, channels, outputs) of one chunk; under `masked` -inf outside a sequence."""
    response = F.conv1d(_windows(table, chunk, kernel, steps.before), weight)
    if not steps.masked:
        return response
    counts = kernel.outputs(steps.lengths[first : first + chunk.items])
    outside = torch.arange(response.shape[2], device=table.device) >= counts[:, None]
    return response.masked_fill(outside[:, None], -torch.inf)


def _dense_peaks(
    table: Tensor, steps: Steps, kernels: Sequence[Kernel], *weights: Tensor
) -> Tensor:
    """Largest response of each filter, (B, sum of channels), longest first; by autograd."""
    rows = []
    for number, chunk in enumerate(steps.chunks):
        responses = [
            _responses(
                table, steps, kernel=kernel, weight=weight, first=number * _CHUNK, chunk=chunk
            ).amax(2)
            for kernel, weight in zip(kernels, weights, strict=True)
        ]
        rows.append(torch.cat(responses, 1))
    return torch.cat(rows)


class _Peaks(torch.autograd.Function):
    """The values of `_dense_peaks`, with a backward that touches only the windows that won."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(
        ctx, table: Tensor, steps: Steps, kernels: Sequence[Kernel], *weights: Tensor
    ) -> Tensor:
        peaks = []  # per kernel: responses (B, channels)
        winners = []  # per kernel: first rows of the windows, int64 (B, channels)
        for kernel, weight in zip(kernels, weights, strict=True):
            found = [
                _peaks_of_chunk(
                    table, steps, kernel=kernel, weight=weight, first=number * _CHUNK, chunk=chunk
                )
                for number, chunk in enumerate(steps.chunks)
            ]
            peaks.append(torch.cat([values for values, _ in found]))
            winners.append(torch.cat([rows for _, rows in found]))
        ctx.save_for_backward(table, *weights, *winners)
        return torch.cat(peaks, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        table, *saved = ctx.saved_tensors
        half = len(saved) // 2
        weights = saved[:half]
        winners = saved[half:]
        grads = grad.split([len(weight) for weight in weights], 1)
        grad_table = torch.zeros_like(table) if ctx.needs_input_grad[0] else None
        grad_weights: list[Tensor | None] = []
        for number, (weight, rows, g) in enumerate(zip(weights, winners, grads, strict=True)):
            wanted = ctx.needs_input_grad[3 + number]
            grad_weights.append(_grad_of_weight(table, weight, rows, g) if wanted else None)
            if grad_table is not None:
                _add_grad_of_table(grad_table, weight, rows, g)
        return grad_table, None, None, *grad_weights


def _peaks_of_chunk(
    table: Tensor, steps: Steps, kernel: Kernel, weight: Tensor, first: int, chunk: Chunk
) -> tuple[Tensor, Tensor]:
    responses = _responses(table, steps, kernel, weight, first=first, chunk=chunk)
    values, winner = responses.max(2)  # (items, channels)
    begin = chunk.start + steps.before - kernel.before + torch.arange(chunk.items) * chunk.rows
    return values, winner + begin[:, None]


def _grad_of_weight(table: Tensor, weight: Tensor, rows: Tensor, grad: Tensor) -> Tensor:
    """Each filter sums the windows it won, weighted by gradient, (channels, C, width).

    rows, grad (B, channels).
    """
    bags = rows.T.contiguous()
    weighting = grad.T.contiguous()
    taps = [
        F.embedding_bag(bags + j, table, per_sample_weights=weighting, mode="sum")
        for j in range(weight.shape[2])
    ]
    return torch.stack(taps, 2)


def _add_grad_of_table(grad_table: Tensor, weight: Tensor, rows: Tensor, grad: Tensor) -> None:
    """Each row of the table gets the filters that won a window there, weighted by gradient."""
    n_rows = len(grad_table)
    n_items, n_channels = rows.shape
    order = rows.flatten().argsort(stable=True)
    filters = torch.arange(n_channels).repeat(n_items)[order]
    weighting = grad.flatten()[order]
    counts = torch.bincount(rows.flatten(), minlength=n_rows)
    offsets = counts.cumsum(0) - counts
    for j in range(weight.shape[2]):
        tap = weight[:, :, j].contiguous()
        won = F.embedding_bag(
            filters, tap, offsets, per_sample_weights=weighting, mode="sum"
        )  # (R, C)
        grad_table[j:] += won[: n_rows - j]
