"""Handler of system "diffusionret", kind "discrimination-ddp": processes of ours against theirs,
and against one.

The published rule (`local_gradient`) is compared with the recorded gradients; `full_gradient`, ours
by default, must give those of one process, which are recorded too.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

from models.base import GatherRule
from models.diffusion_ret.model import DiffusionRet
from models.diffusion_ret.published import published_names
from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, close
from pipeline.parity.diffusionret.model import (
    CHECKPOINT,
    batch_of,
    forward_values,
    opened,
    same_sizes,
    tolerance_of,
)

_RULES: dict[GatherRule, str] = {
    "local_gradient": "grad_norms_ddp2",
    "full_gradient": "grad_norms_single",
}


def distributed(case: Case) -> Iterator[Comparison]:
    """Features and the loss of one process; the loss of every rank and gradients after the
    average.
    """
    model, batch = opened(case), batch_of(case.inputs)
    yield from same_sizes(case, model)
    size = case.info["options"]["world_size"]
    case.path(CHECKPOINT)
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_rank, (str(case.folder), folder, size), nprocs=size)
        ranks = [dict(np.load(Path(folder) / f"{rank}.npz")) for rank in range(size)]
    names = case.info["grad_names"]
    values: dict[str, object] = dict(forward_values(model, batch))
    single = _gradients(model, batch, names)
    values |= {"grad_norms_single": single, "grad_norms_ddp2": ranks[0]["local_gradient"]}
    values["ratio"] = ranks[0]["local_gradient"] / single
    values |= {f"loss_rank{rank}": found["loss"] for rank, found in enumerate(ranks)}
    for name, expected in case.outputs.items():
        yield close(
            name,
            values[name],
            expected,
            tolerance_of(case, "grad_norms_" if name == "ratio" else name),
        )
    for rank, found in enumerate(ranks):
        for rule, name in _RULES.items():
            row = f"{name}[{rule}, rank {rank}]"
            yield close(row, found[rule], case.outputs[name], tolerance_of(case, name))


def _gradients(model: torch.nn.Module, batch: dict[str, Tensor], names: list[str]) -> np.ndarray:
    """Norms by published names, of the model itself or wrapped."""
    model.train()(batch)["loss"].backward()
    inner: DiffusionRet = getattr(model, "module", model)
    named = published_names(
        {name: p.grad for name, p in inner.named_parameters() if p.grad is not None}
    )
    return np.array([float(named[name].double().norm()) for name in names])


def _rank(rank: int, case_folder: str, folder: str, size: int) -> None:
    """One process: writes what it found as <rank>.npz."""
    case = Case(Path(case_folder))
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size
    )
    try:
        share = -(-len(case.inputs["text_ids"]) // size)
        batch = batch_of(case.inputs, slice(rank * share, (rank + 1) * share))
        model = opened(case).train()
        with torch.no_grad():
            found = {"loss": model(batch)["loss"].numpy()}
        for rule in _RULES:
            model.gather_rule = rule
            model.zero_grad()
            wrapped = torch.nn.parallel.DistributedDataParallel(model)
            found[rule] = _gradients(wrapped, batch, case.info["grad_names"])
        np.savez(Path(folder) / f"{rank}.npz", **found)
    finally:
        dist.destroy_process_group()


HANDLERS = {"discrimination-ddp": distributed}
