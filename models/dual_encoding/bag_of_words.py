"""Bags of words, and a linear layer on [bag | dense] that reads only the words of a batch.

Level 1 of the text encoder of Dual Encoding (Dong et al., TPAMI 2021, section 3.2). A batch of 128
captions has about a thousand distinct words of a vocabulary of 7,811: only their columns of the
weight are read and get a gradient. Published code sums one-hot vectors (B, L, V) and multiplies by
every column: the same values.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.parts.matmul import linear

PAD = 0


@dataclass(frozen=True)
class Bag:
    """Word counts of B texts: counts (B, U) float of U distinct words.

    columns (U,) int64, rising: which of the n_words of the vocabulary they are.
    """

    columns: Tensor
    counts: Tensor
    n_words: int

    @classmethod
    def of(cls, tokens: Tensor, n_words: int, skip: int = 1) -> "Bag":
        """Return the counts (B, U) of tokens (B, L) int64.

        The first `skip` entries of the vocabulary are not counted; PAD is the first one.
        """
        columns, place = tokens.unique(return_inverse=True)
        counts = torch.zeros(len(tokens), len(columns), device=tokens.device)
        counts.scatter_add_(1, place, torch.ones_like(place, dtype=counts.dtype))
        counted = columns >= skip
        return cls(columns[counted], counts[:, counted], n_words)

    def dense(self) -> Tensor:
        """Return the counts of the whole vocabulary, (B, n_words)."""
        return self.counts.new_zeros(len(self.counts), self.n_words).index_copy(
            1, self.columns, self.counts
        )


def bag_linear(bag: Bag, rest: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return F.linear of [bag, rest]: rest (B, R), weight (D, n_words + R), bias (D,) -> (B, D)."""
    if weight.is_cuda:  # a GPU multiplies all columns faster than it chooses some
        return F.linear(torch.cat([bag.dense().to(rest.dtype), rest], 1), weight, bias)
    return _BagLinear.apply(rest, weight, bias, bag)


class _BagLinear(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, rest: Tensor, weight: Tensor, bias: Tensor, bag: Bag) -> Tensor:
        """rest (B, R), weight (D, n_words + R), bias (D,) -> (B, D)."""
        ctx.save_for_backward(rest, weight, bag.columns, bag.counts)
        out = linear(rest, weight[:, bag.n_words :], bias)
        return out.addmm_(bag.counts.to(weight.dtype), weight.index_select(1, bag.columns).T)

    @staticmethod
    @torch.autograd.function.once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """grad (B, D) -> those of rest (B, R), weight (D, n_words + R) and bias (D,)."""
        rest, weight, columns, counts = ctx.saved_tensors
        n_words = weight.shape[1] - rest.shape[1]
        grad_rest = linear(grad, weight[:, n_words:].T) if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = torch.zeros_like(weight)
            grad_weight[:, n_words:] = linear(grad.T, rest.T)
            grad_weight.index_copy_(1, columns, grad.T @ counts.to(grad.dtype))
        return grad_rest, grad_weight, grad.sum(0) if ctx.needs_input_grad[2] else None, None
