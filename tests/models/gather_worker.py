"""One of two processes that encode their shares of a batch; rank 0 prints the gradients, averaged
as DDP does.
"""

import json
import sys

import torch
import torch.distributed as dist

from models.base import gather


def gradients(rows: torch.Tensor, rule: str) -> list[float]:
    """Gradient of a weight before the gather and of one after it, for a loss over the rows of all
    ranks.
    """
    before, after = (
        torch.tensor([0.5, -1.5], requires_grad=True),
        torch.tensor(2.0, requires_grad=True),
    )
    encoding = gather({"x": rows * before, "index": torch.arange(len(rows))}, rule)
    scores = after * encoding["x"] @ encoding["x"].T
    loss = torch.logsumexp(scores, 1).sum() + encoding["index"].sum()
    return [
        value
        for grad in torch.autograd.grad(loss, [before, after])
        for value in grad.flatten().tolist()
    ]


def main(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    rows = torch.arange(10.0).view(5, 2) / 10
    mine = rows[:3] if rank == 0 else rows[3:]  # unequal shares
    found = {}
    for rule in ("full_gradient", "local_gradient"):
        grads = torch.tensor(gradients(mine, rule))
        dist.all_reduce(grads)
        found[rule] = (grads / 2).tolist()
    if rank == 0:
        sys.stdout.write(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
