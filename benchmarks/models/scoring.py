"""CPU-seconds and memory of scoring cosines in blocks and ranking them both ways. Published: 0.94 s
for 1,000 x 1,000.

Run: OMP_NUM_THREADS=1 python -m benchmarks.models.scoring
"""

import os
import platform
import resource
import time

import click
import numpy as np
import torch
from torch import Tensor

from models.base import Encoding, RetrievalModel
from pipeline.evaluation.retrieve import Encoded, RankSettings, retrieve

WIDTH, LIMIT, BUDGET_MB = 512, 0.05, 64


class Cosine(RetrievalModel):
    """What DRL, CenterCLIP and DGL score with at its plainest."""

    def __init__(self):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))  # says which device to use

    def score(self, text: Encoding, video: Encoding) -> dict[str, Tensor]:
        return {"similarity": text["x"] @ video["x"].T}


def encoded(n: int) -> Encoded:
    text, video = (torch.nn.functional.normalize(torch.randn(n, WIDTH), dim=-1) for _ in range(2))
    return Encoded({"x": text}, {"x": video}, np.arange(n))


def main() -> None:
    torch.manual_seed(0)
    model, settings = Cosine().eval(), RankSettings(budget=BUDGET_MB << 20)
    click.echo(f"{'':<18}{'CPU-s':>9}{'more memory, MB':>17}{'matrix, MB':>12}")
    for n, rounds in ((1_000, 5), (10_000, 1)):
        both, target, spent = encoded(n), np.arange(n), []
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(rounds):
            start = time.process_time()
            retrieve(model, both, target, settings)
            spent.append(time.process_time() - start)
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        verdict = (
            f"   {'within' if min(spent) <= LIMIT else 'BEYOND'} {LIMIT} s" if n == 1_000 else ""
        )
        click.echo(
            f"{f'{n:,} x {n:,}':<18}{min(spent):>9.3f}{more:>17,.0f}{n * n * 4 / 2**20:>12,.0f}{verdict}"
        )
    machine = platform.processor() or platform.machine()
    click.echo(
        f"blocks of {BUDGET_MB} MB, {machine}, {torch.get_num_threads()} of {os.cpu_count()}"
        " threads"
    )


if __name__ == "__main__":
    main()
