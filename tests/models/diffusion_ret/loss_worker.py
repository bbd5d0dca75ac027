"""One of two processes that share a batch of five pairs, three and two; prints the norms of its
averaged gradients.
"""

import json
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.models.diffusion_ret.small_diffusion import batch, small_diffusion


def main(stage: str, store: str, rank: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    rows = slice(0, 3) if rank == 0 else slice(3, 5)  # unequal shares
    model = small_diffusion(stage)
    wrapped = DistributedDataParallel(model)
    torch.manual_seed(3)  # seed_scope same: every process draws for all pairs
    wrapped({name: value[rows] for name, value in batch(5).items()})["loss"].backward()
    sys.stdout.write(
        json.dumps({name: float(p.grad.norm()) for name, p in model.named_parameters()})
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
