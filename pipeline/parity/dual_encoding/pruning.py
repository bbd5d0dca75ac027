"""Handler of system "dual-encoding", kind "prune"."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from models.dual_encoding.model import DualEncoding, build
from models.dual_encoding.published import import_checkpoint, published_names
from models.parts.pruning import prunable, prune, sparsity
from pipeline.checkpoints.archive import read_archive
from pipeline.parity.case import Case
from pipeline.parity.compare import EXACT, Comparison, Tolerance, close, equal
from pipeline.parity.dual_encoding.model import batch_of, forward, opened


def pruning(case: Case) -> Iterator[Comparison]:
    """The same entries pruned, the same counts and printout, and the published file after pruning
    read and run.
    """
    before, after = case.info["files"]
    options, assets = yield from opened(case, before)
    model, how = build(options, assets).eval(), case.info["prune"]
    chosen = {"weights": how["weight"], "biases": how["bias"]}
    pool = published_names(options, prunable(model, **chosen))
    magnitudes = torch.cat([p.detach().abs().flatten() for p in pool.values()])
    kept = published_names(options, prune(model, how["rate"], **chosen))
    yield from _counts(model, kept, magnitudes, case)
    for name in (n for n in case.outputs if n.startswith("mask/")):
        yield close(name, kept[name.removeprefix("mask/")], case.outputs[name], EXACT)
    yield equal(
        "mask[names]",
        sorted(kept),
        sorted(n.removeprefix("mask/") for n in case.outputs if "mask/" in n),
    )
    published = read_archive(case.path(after), published=True)
    theirs = import_checkpoint(published)[1].init
    same = all(torch.equal(theirs[name], value) for name, value in model.state_dict().items())
    yield equal("files[state dict after pruning]", same, True)
    # pruning moves keys behind others of their module; we match by name, the order carries no
    # meaning
    names = sorted(published_names(options, model.state_dict()))
    yield equal("state_dict_order_after[names]", names, sorted(case.info["state_dict_order_after"]))
    yield equal(
        "state_dict_order_after[file]",
        list(published["state_dict"]),
        case.info["state_dict_order_after"],
    )
    batch, tolerance = batch_of(case.inputs), Tolerance.parse(case.info["tolerance"])
    for where, used in (
        ("ours", model),
        ("their file", build(options, replace(assets, init=theirs)).eval()),
    ):
        fused = forward(used, batch)["sim_fused_v2t"]
        yield close(f"sim_fused_v2t[{where}]", fused, case.outputs["sim_fused_v2t"], tolerance)


def _counts(
    model: DualEncoding, kept: dict[str, Tensor], magnitudes: Tensor, case: Case
) -> Iterator[Comparison]:
    pruned = sum(int((~mask).sum()) for mask in kept.values())
    counts = sparsity(published_names(model.options, dict(model.named_parameters())))
    zeros, total = sum(z for z, _ in counts.values()), sum(n for _, n in counts.values())
    yield equal("pool_numel", len(magnitudes), case.info["pool_numel"])
    yield equal("expected_pruned", pruned, case.info["expected_pruned"])
    yield equal("zeros_in_pool", sum(counts[name][0] for name in kept), case.info["zeros_in_pool"])
    largest = float(magnitudes.kthvalue(pruned).values) if pruned else 0.0
    yield close("largest_pruned_magnitude", largest, case.info["largest_pruned_magnitude"], EXACT)
    yield equal("total_parameters", total, case.info["total_parameters"])
    yield close(
        "nonzero_over_total", 1 - zeros / total, case.info["nonzero_over_total"], Tolerance(1e-12)
    )
    rows = {
        name: {"numel": n, "zeros": z, "in_pool": name in kept} for name, (z, n) in counts.items()
    }
    yield equal("per_parameter", sorted(rows.items()), sorted(case.info["per_parameter"].items()))
    yield equal("reference_printout", _printout(counts, kept), case.info["reference_printout"])


def _printout(counts: Mapping[str, tuple[int, int]], kept: Mapping[str, Tensor]) -> list[str]:
    """Percent of zeros per module, weights and biases apart, as the published script prints it."""
    sums: dict[tuple[str, str], np.ndarray] = {}
    for name in kept:
        module, _, parameter = name.rpartition(".")
        kind = "weight" if "weight" in parameter else "bias"
        sums[module, kind] = sums.get((module, kind), 0) + np.array(counts[name])
    modules = list(dict.fromkeys(module for module, _ in sums))
    ordered = [
        (module, kind)
        for module in modules
        for kind in ("weight", "bias")
        if (module, kind) in sums
    ]
    return [f"Sparsity in {m} {k}: {100 * sums[m, k][0] / sums[m, k][1]:.2f}" for m, k in ordered]


HANDLERS = {"prune": pruning}
