"""One of two processes that share a batch of five pairs, three and two, for every system and kind.

The first one saves the averaged gradients as {"system kind": {parameter: gradient}}, and for
IN_PARTS and each gather rule those of a batch read in parts: {"rule system kind in parts": ...}. Of
the published rule the whole batch too: {"local_gradient system kind": ...}.
"""

import contextlib
import sys
import warnings

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from models.base import RetrievalModel
from pipeline import processes
from pipeline.training.micro_batches import InParts
from tests.models.subject import cases, subject

IN_PARTS = (
    ("centerclip", "kmedoids"),
    ("dgl", "transformer"),
    ("diffusion_ret", "denoise"),
    ("drl", "xti"),
    ("drl", "cdcr"),
)
RULES = ("full_gradient", "local_gradient")
_OWN = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.Dropout)  # differ by process by design


def train_without_chance(model: RetrievalModel) -> RetrievalModel:
    """The model in training mode, but for batch norms and dropout."""
    model.train()
    for part in model.modules():
        if isinstance(part, _OWN):
            part.eval()
    return model


def gradients(model: torch.nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of one step; what it draws comes from seed 3."""
    torch.manual_seed(3)  # seed_scope same: every process draws for all pairs
    model(batch)["loss"].backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def gradients_in_parts(
    model: RetrievalModel, batch: dict[str, Tensor], n_pairs: int
) -> dict[str, Tensor]:
    """The same step with `n_pairs` encoded at once."""
    torch.manual_seed(3)
    parts = InParts(model, batch, n_pairs, contextlib.nullcontext)
    parts.backward(parts.losses["loss"])
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def in_parts_of_two(model: RetrievalModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """`gradients_in_parts` of two pairs: the shares of three and two have unlike parts."""
    return gradients_in_parts(model, batch, n_pairs=2)


def main(out: str, store: str, rank: int) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="find_unused_parameters")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    rows = slice(0, 3) if rank == 0 else slice(3, 5)  # unequal shares
    found = {}
    for system, kind in cases():
        own = subject(system)
        model = train_without_chance(own.model(**own.kinds[kind]))
        # 3d patches and tight comparison leave weights of CLIP out of the loss
        wrapped = DistributedDataParallel(model, find_unused_parameters=True)
        grads = gradients(wrapped, {name: value[rows] for name, value in own.batch(5).items()})
        found[f"{system} {kind}"] = {k.removeprefix("module."): v for k, v in grads.items()}
    for rule in RULES:
        for system, kind in IN_PARTS:
            own = subject(system)
            share = {name: value[rows] for name, value in own.batch(5).items()}
            ways = {" in parts": in_parts_of_two}
            if rule != "full_gradient":
                ways[""] = gradients
            for suffix, made in ways.items():
                model = train_without_chance(own.model(**own.kinds[kind]))
                model.gather_rule = rule
                made(model, share)
                world = processes.World(rank, 2)
                processes.mean_gradients(list(model.parameters()), world)
                grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
                found[f"{rule} {system} {kind}{suffix}"] = grads
    if rank == 0:
        torch.save(found, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
