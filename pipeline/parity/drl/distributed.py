"""Handler of system "drl", kind "distributed_gradients": two processes of ours against two of
theirs, and against one.

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

from models.base import GatherRule, gather
from models.drl.model import Drl
from pipeline.parity.case import Case
from pipeline.parity.compare import Comparison, close
from pipeline.parity.drl.model import batch_of, gradient_norms, opened, tolerance


def distributed_gradients(case: Case) -> Iterator[Comparison]:
    """Losses and logits of every rank, gradients after the average, the same batch in one
    process.
    """
    case.path(case.info["checkpoint"].partition(":")[0])
    size = case.info["options"]["world_size"]
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_rank, (str(case.folder), folder), nprocs=size)
        ranks = [dict(np.load(Path(folder) / f"{rank}.npz")) for rank in range(size)]
    allowed = {kind: tolerance(words) for kind, words in case.info["tolerance"].items()}
    names = case.info["param_names"]
    values = {
        f"{side}_rank{r}": found[side] for r, found in enumerate(ranks) for side in ("t2v", "v2t")
    }
    values |= {
        f"{term}_rank": np.array([found[term] for found in ranks]) for term in ("loss", "cdcr")
    }
    single = _single(case, names)
    values |= single | {"grad_norm_2ranks": ranks[0]["local_gradient"]}
    for name, expected in case.outputs.items():
        kind = "grads" if name.startswith("grad") else "default"
        yield close(name, values[name], expected, allowed[kind])
    for rank, found in enumerate(ranks):
        for rule, recorded in (
            ("local_gradient", "grad_norm_2ranks"),
            ("full_gradient", "grad_norm_1process"),
        ):
            name = f"{recorded}[{rule}, rank {rank}]"
            yield close(name, found[rule], case.outputs[recorded], allowed["grads"])
    ratios = case.info["ratio_2ranks_to_1process"]
    ours = dict(
        zip(
            names,
            ranks[0]["local_gradient"] / np.maximum(single["grad_norm_1process"], 1e-30),
            strict=True,
        )
    )
    for name, ratio in ratios.items():
        if (
            ratio is not None
            and single["grad_norm_1process"][names.index(name)] > allowed["grads"].absolute
        ):
            yield close(
                f"ratio_2ranks_to_1process[{name}]", ours[name], ratio, tolerance("rtol 2e-2")
            )


def _single(case: Case, names: list[str]) -> dict[str, object]:
    batch = batch_of(case.inputs)
    model = opened(case, batch).train()
    terms = model(batch)
    terms["loss"].backward()
    return {
        "loss_1process": terms["loss"].detach(),
        "grad_norm_1process": np.array(gradient_norms(model, names)),
    }


def _rank(rank: int, case_folder: str, folder: str) -> None:
    """One process: writes what it found as <rank>.npz."""
    case = Case(Path(case_folder))
    options = case.info["options"]
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=options["world_size"]
    )
    try:
        share = options["per_rank_batch"]
        whole = batch_of(case.inputs)
        batch = {name: value[rank * share : (rank + 1) * share] for name, value in whole.items()}
        model = opened(case, batch).train()
        found = _logits(model, batch)
        for rule in ("local_gradient", "full_gradient"):
            found |= _gradients(model, batch, rule, case.info["param_names"])
        np.savez(Path(folder) / f"{rank}.npz", **found)
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def _logits(model: Drl, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return what this rank's loss is computed from; as published, rotated so that the own pairs
    lie on the diagonal.
    """
    text, video = model.read_text(batch), model.read_video(batch)
    if model.options.interaction != "xti":
        text, video = gather(text), gather(video)
    t2v, v2t, first, _ = model.logits(model.text_encoding(text), model.video_encoding(video))
    return {"t2v": t2v.roll(-first, 1).numpy(), "v2t": v2t.roll(-first, 1).numpy()}


def _gradients(
    model: Drl, batch: dict[str, torch.Tensor], rule: GatherRule, names: list[str]
) -> dict[str, np.ndarray]:
    model.gather_rule = rule
    model.zero_grad()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)  # must outlive the backward pass
    terms = wrapped(batch)
    terms["loss"].backward()
    cdcr = terms.get("cdcr", torch.zeros(()))
    return {
        "loss": terms["loss"].detach().double().numpy(),
        "cdcr": cdcr.detach().double().numpy(),
        rule: np.array(gradient_norms(model, names)),
    }


HANDLERS = {"distributed_gradients": distributed_gradients}
