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


def prunable(
    model: nn.Module, *, weights: bool = True, biases: bool = False
) -> dict[str, nn.Parameter]:
    """The parameters that share one pool, by name and in the order of the model."""
    if not weights and not biases:
        raise Mismatch("nothing to prune", "Choose weights, biases or both.")
    kinds = [kind for kind, wanted in (("weight", weights), ("bias", biases)) if wanted]
    return {
        f"{prefix}.{name}" if prefix else name: parameter
        for prefix, module in model.named_modules()
        if isinstance(module, _LAYERS)
        for name, parameter in module.named_parameters(recurse=False)
        if any(kind in name for kind in kinds)
    }


@torch.no_grad()
def prune(
    model: nn.Module, rate: float, *, weights: bool = True, biases: bool = False
) -> dict[str, Tensor]:
    """Zero the round(rate * pool) entries of smallest magnitude in place; masks by parameter name,
    True = kept.

    rate: share of the pool, 0 to 1. Raises Mismatch for another rate, or if neither weights nor
    biases are chosen.
    """
    pool = prunable(model, weights=weights, biases=biases)
    kept = masks(pool, rate)
    for name, parameter in pool.items():
        parameter.mul_(kept[name])
    return kept


def keep_zeros(model: RetrievalModel, pruned: Mapping[str, object]) -> None:
    """Let what pruning set to zero stay zero in training: entries that are zero get no gradient
    from now on.

    Published pruning is never followed by training; with it, zeros would fill up again at the first
    step. pruned: what `prune` did, {amount, weights, biases}. The weights themselves say which
    entries, so nothing need be stored.
    """
    pool = prunable(model, weights=bool(pruned["weights"]), biases=bool(pruned["biases"]))
    for parameter in pool.values():
        parameter.register_hook(partial(_where_not_zero, parameter))
    model.pruned = dict(pruned)


def recognise(model: nn.Module) -> dict[str, object] | None:
    """What `prune` must have done to a model whose file does not say: {amount, weights, biases},
    None for nothing.

    Weights that were only trained are never exactly zero in such numbers (a thousandth of them).
    """
    shares = {}
    for kind in ("weights", "biases"):
        pool = prunable(model, weights=kind == "weights", biases=kind == "biases").values()
        zeros, size = (
            sum(counts)
            for counts in zip(*((int((p == 0).sum()), p.numel()) for p in pool), strict=True)
        )
        shares[kind] = (zeros, size) if zeros >= 1e-3 * size else (0, 0)
    zeros, size = (sum(counts) for counts in zip(*shares.values(), strict=True))
    found = {kind: share[0] > 0 for kind, share in shares.items()}
    return {"amount": round(zeros / size, 4), **found} if zeros else None


def _where_not_zero(parameter: nn.Parameter, grad: Tensor) -> Tensor:
    return grad.masked_fill(parameter == 0, 0)


def masks(tensors: Mapping[str, Tensor], rate: float) -> dict[str, Tensor]:
    """What `prune` keeps of the tensors as one pool: bool, True = kept. Ties at the limit go by
    position.
    """
    if not 0 <= rate <= 1:
        raise Mismatch(f"a pruning rate of {rate}", "Give a share between 0 and 1.")
    sizes = [tensor.numel() for tensor in tensors.values()]
    magnitudes = torch.cat([tensor.detach().abs().flatten() for tensor in tensors.values()])
    kept = _largest(magnitudes, len(magnitudes) - round(rate * len(magnitudes)))
    parts = zip(tensors.items(), kept.split(sizes), strict=True)
    return {name: part.view(tensor.shape) for (name, tensor), part in parts}


def _largest(values: Tensor, n: int) -> Tensor:
    """Which n of the values (N,) are largest, bool; of equal ones the last."""
    gone = len(values) - n
    if gone == 0 or n == 0:
        return torch.full_like(values, n > 0, dtype=torch.bool)
    limit = values.kthvalue(gone).values
    kept = values > limit
    tied = (values == limit).nonzero().flatten()
    kept[tied[len(tied) - (n - int(kept.sum())) :]] = True
    return kept


def sparsity(state: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Zeros and entries of every parameter or buffer by name."""
    return {
        name: (tensor.numel() - int(tensor.count_nonzero()), tensor.numel())
        for name, tensor in state.items()
    }
