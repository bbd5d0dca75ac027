"""A checkpoint with its smallest weights set to zero: made, saved small, read back and compared,
reported.

Source: dongYoun2/dual-encoding-system: scripts/prune.py (docs/specs/dual-encoding.md, section 8.1).
There the file stays dense and "size ratio" is not defined; both meanings it may have are reported
here, and neither is claimed to be the paper's.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from models.parts.pruning import prunable, prune, sparsity
from pipeline.checkpoints import model_file, sparse
from pipeline.checkpoints.model_file import ModelInfo
from pipeline.checkpoints.toolkit_file import find_checkpoint
from pipeline.errors import DataError


@dataclass(frozen=True)
class Pruned:
    """weights: the state dict after pruning. kept: masks of the pool by name, True = kept.
    bytes_before: the source.
    """

    info: ModelInfo
    weights: dict[str, Tensor]
    parameters: frozenset[str]
    kept: dict[str, Tensor]
    amount: float
    bytes_before: int

    def report(self, reference: int | None, file: Path) -> dict:
        """Counts, size ratios and, per module, [zeros, entries] of its weights and biases; `file`:
        what `save` wrote.

        reference: parameters that the ratios refer to. nonzero: entries that are not zero /
        reference; product:
        (1 - amount) * parameters / reference.
        """
        counts = sparsity({name: self.weights[name] for name in self.parameters})
        zeros = sum(n_zeros for n_zeros, _ in counts.values())
        total = sum(n_entries for _, n_entries in counts.values())
        reference = reference or total
        stored = sparse.packed(self.weights)
        return {
            "amount": self.amount,
            "pool": sum(mask.numel() for mask in self.kept.values()),
            "pruned": sum(mask.numel() - int(mask.sum()) for mask in self.kept.values()),
            "parameters": total,
            "nonzero": total - zeros,
            "nonzero_share": round((total - zeros) / total, 6),
            "reference": reference,
            "size_ratio": {
                "nonzero": round((total - zeros) / reference, 6),
                "product": round((1 - self.amount) * total / reference, 6),
            },
            "bytes_before": self.bytes_before,
            "bytes": file.stat().st_size,
            "tensor_bytes": {
                "dense": sparse.stored_bytes(self.weights),
                "stored": sparse.stored_bytes(stored),
            },
            "modules": _by_module(counts, self.kept),
        }


def make(source: Path, amount: float, *, weights: bool = True, biases: bool = False) -> Pruned:
    """Prune the model of a checkpoint. Raises DataError for what is no checkpoint, Mismatch for an
    impossible rate.
    """
    file = find_checkpoint(source)
    model, info = model_file.load_model(file)
    if not prunable(model, weights=weights, biases=biases):
        raise DataError(
            f"{info.recipe.model} has no GRU, convolution or linear layer to prune",
            where=file,
            fix="Prune a model that has such layers.",
        )
    kept = prune(model, amount, weights=weights, biases=biases)
    what = {"amount": amount, "weights": weights, "biases": biases}
    info = replace(info, facts=info.facts | {"pruned": what})
    names = frozenset(name for name, _ in model.named_parameters())
    return Pruned(
        info=info,
        weights=model.state_dict(),
        parameters=names,
        kept=kept,
        amount=amount,
        bytes_before=file.stat().st_size,
    )


def save(made: Pruned, path: Path) -> None:
    """Write the checkpoint, packed, and read it back: DataError if that does not give the very same
    weights.
    """
    model_file.write_model(path, made.info, made.weights)
    again = model_file.load_model(path)[0].state_dict()
    if wrong := sorted(
        name for name, value in made.weights.items() if not torch.equal(again[name], value)
    ):
        raise DataError(
            f"{len(wrong):,} tensors are not what was written: {', '.join(wrong[:3])}",
            where=path,
            fix="The disk or the memory is at fault; check it and run the step again.",
        )


def file_suffix(facts: dict) -> str:
    """Return what the published script puts behind a file's name for a pruned model
    ("_pruned_wb_0.3"), else "".
    """
    done = facts.get("pruned")
    if not done:
        return ""
    letters = "w" * bool(done["weights"]) + "b" * bool(done["biases"])
    return f"_pruned_{letters}_{float(done['amount'])}"


def _by_module(
    counts: dict[str, tuple[int, int]], kept: dict[str, Tensor]
) -> dict[str, dict[str, list[int]]]:
    """Return {module: {"weight" or "bias": [zeros, entries]}} of the modules in the pool, in
    order.
    """
    modules: dict[str, dict[str, list[int]]] = {}
    for name in kept:
        module, _, parameter = name.rpartition(".")
        kind = "weight" if "weight" in parameter else "bias"
        sums = modules.setdefault(module, {}).setdefault(kind, [0, 0])
        sums[0], sums[1] = sums[0] + counts[name][0], sums[1] + counts[name][1]
    return modules
