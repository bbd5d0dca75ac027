"""Several processes started by torchrun, or one without any set-up: the same code runs in both.

Rank and world size come from the environment that torchrun sets; no port is fixed. Rank 0 alone
writes files.
"""

import atexit
import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class World:
    """Who this process is. `size` 1 means there is no process group."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @classmethod
    def of_environment(cls) -> "World":
        """As torchrun says in the environment; one process if it says nothing. ConfigError for half
        a set-up.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        given = [name for name in names if name in os.environ]
        if not given or os.environ.get("WORLD_SIZE") == "1":
            return cls()
        try:
            numbers = [int(os.environ[name]) for name in names]
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"the environment has {', '.join(given)} but not all of {', '.join(names)} as"
                " numbers",
                where="distributed training",
                fix="Start with: torchrun --nproc-per-node N cli.py train ...",
            ) from error
        return cls(*numbers)


def join(world: World, device: torch.device, timeout_minutes: float) -> None:
    """Make the process group: nccl on GPUs, gloo elsewhere. Nothing for one process, or if there is
    one already.

    It stays until the process ends: torchrun's store does not allow a second one.
    """
    if world.size == 1 or dist.is_initialized():
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        rank=world.rank,
        world_size=world.size,
        timeout=datetime.timedelta(minutes=timeout_minutes),
    )
    atexit.register(dist.destroy_process_group)


def any_of(flag: bool, world: World, device: torch.device) -> bool:
    """True on every rank if `flag` is true on any, so that all take the same way."""
    if world.size == 1:
        return flag
    value = torch.tensor([int(flag)], device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def mean_of(values: torch.Tensor, world: World) -> torch.Tensor:
    """Return the mean over ranks; the tensor itself in one process."""
    if world.size == 1:
        return values
    dist.all_reduce(values, dist.ReduceOp.SUM)
    return values / world.size


def from_first(value: object, world: World) -> object:
    """Rank 0's value on every rank (small plain values)."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def share_buffers(model: nn.Module, world: World) -> None:
    """Give every rank the buffers of rank 0: batch statistics differ between ranks during
    training.
    """
    if world.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def share_weights(model: nn.Module, world: World) -> None:
    """Give every rank the weights and buffers of rank 0."""
    if world.size > 1:
        with torch.no_grad():
            for parameter in model.parameters():
                dist.broadcast(parameter, src=0)
        share_buffers(model, world)


def mean_gradients(parameters: Sequence[nn.Parameter], world: World) -> None:
    """Put the mean over ranks into every gradient. One that no rank has stays None; one that some
    have counts as 0 on the others.
    """
    if world.size == 1:
        return
    had = torch.tensor([p.grad is not None for p in parameters], device=parameters[0].device).int()
    dist.all_reduce(had, dist.ReduceOp.MAX)
    for parameter, is_used in zip(parameters, had.tolist(), strict=True):
        if is_used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= world.size


def barrier(world: World) -> None:
    """Wait until every rank is here; the time-out of the group ends a wait for a dead one."""
    if world.size > 1:
        dist.barrier()
