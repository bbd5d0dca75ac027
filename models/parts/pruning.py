"""Global unstructured pruning: the smallest weights of the whole model become zero.

Source: dongYoun2/dual-encoding-system: scripts/prune.py (docs/specs/dual-encoding.md, section 8.1;
torch's L1 unstructured pruning). One pool over all GRU, convolution and linear layers (never word
vectors or norms); round(rate * pool) entries go. Only how ties are broken differs: ours go by
position, the published order is undefined.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from models.base import Mismatch, RetrievalModel

_LAYERS = (nn.GRU, nn.Conv1d, nn.Linear)
_TELLING_SHARE = 1e-3  # of zeros: weights that were only trained are never exactly zero so often


def prunable(
    model: nn.Module, *, weights: bool = True, biases: bool = False
) -> dict[str, nn.Parameter]:
    """Return the parameters that share one pool, by name and in the order of the model.

    Raises Mismatch if neither weights nor biases are chosen.
    """
    kinds = []
    if weights:
        kinds.append("weight")
    if biases:
        kinds.append("bias")
    if not kinds:
        raise Mismatch("nothing to prune", "Choose weights, biases or both.")
    pool = {}
    for prefix, module in model.named_modules():
        if not isinstance(module, _LAYERS):
            continue
        for name, parameter in module.named_parameters(prefix, recurse=False):
            own_name = name.rpartition(".")[2]
            if any(kind in own_name for kind in kinds):
                pool[name] = parameter
    return pool


@torch.no_grad()
def prune(
    model: nn.Module, rate: float, *, weights: bool = True, biases: bool = False
) -> dict[str, Tensor]:
    """Zero the round(rate * pool) entries of smallest magnitude in place; return what was kept.

    That is a mask for each parameter in its shape, bool, True = kept. rate: share of the pool, 0 to
    1. Raises Mismatch for another rate, or if neither weights nor biases are chosen.
    """
    pool = prunable(model, weights=weights, biases=biases)
    keep = masks(pool, rate)
    for name, parameter in pool.items():
        parameter.mul_(keep[name])
    return keep


def keep_zeros(model: RetrievalModel, pruned: Mapping[str, object]) -> None:
    """Keep what pruning set to zero at zero in training: such entries get no gradient from now on.

    Published pruning is never followed by training; if it were, zeros would fill up again at the
    first step. pruned: what `prune` did, {amount, weights, biases}. The weights themselves say
    which entries, so nothing has to be stored.
    """
    pool = prunable(model, weights=bool(pruned["weights"]), biases=bool(pruned["biases"]))
    for parameter in pool.values():
        parameter.register_hook(partial(_mask_zeros, parameter))
    model.pruned = dict(pruned)


def recognise(model: nn.Module) -> dict[str, object] | None:
    """Return what `prune` must have done to a model whose file does not say, or None for nothing.

    {amount, weights, biases}, as `keep_zeros` takes it.
    """
    zeros_in_all = 0
    size_of_all = 0
    is_pruned = {"weights": False, "biases": False}
    for kind in is_pruned:
        pool = prunable(model, weights=kind == "weights", biases=kind == "biases")
        zeros = sum(int((parameter == 0).sum()) for parameter in pool.values())
        size = sum(parameter.numel() for parameter in pool.values())
        if zeros and zeros >= _TELLING_SHARE * size:
            is_pruned[kind] = True
            zeros_in_all += zeros
            size_of_all += size
    if not zeros_in_all:
        return None
    return {"amount": round(zeros_in_all / size_of_all, 4), **is_pruned}


def _mask_zeros(parameter: nn.Parameter, grad: Tensor) -> Tensor:
    return grad.masked_fill(parameter == 0, 0)


def masks(tensors: Mapping[str, Tensor], rate: float) -> dict[str, Tensor]:
    """Return what `prune` keeps of the tensors as one pool: bool in their shapes, True = kept.

    Ties at the limit go by position. Raises Mismatch for a rate outside 0 to 1.
    """
    if not 0 <= rate <= 1:
        raise Mismatch(f"a pruning rate of {rate}", "Give a share between 0 and 1.")
    sizes = [tensor.numel() for tensor in tensors.values()]
    magnitudes = torch.cat([tensor.detach().abs().flatten() for tensor in tensors.values()])
    n_kept = len(magnitudes) - round(rate * len(magnitudes))
    parts = _largest(magnitudes, n_kept).split(sizes)
    pairs = zip(tensors.items(), parts, strict=True)
    return {name: part.view(tensor.shape) for (name, tensor), part in pairs}


def _largest(values: Tensor, n: int) -> Tensor:
    """Return which n of the values (N,) are largest, bool (N,). Ties go to the highest index."""
    n_others = len(values) - n
    if n_others == 0 or n == 0:
        return torch.full_like(values, n > 0, dtype=torch.bool)
    limit = values.kthvalue(n_others).values
    largest = values > limit
    tied = (values == limit).nonzero().flatten()
    n_missing = n - int(largest.sum())
    largest[tied[len(tied) - n_missing :]] = True
    return largest


def sparsity(state: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Return (zeros, entries) of every parameter or buffer by name, of whatever shape."""
    return {
        name: (tensor.numel() - int(tensor.count_nonzero()), tensor.numel())
        for name, tensor in state.items()
    }
