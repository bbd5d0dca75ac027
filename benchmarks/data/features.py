"""Frames per CPU-second through ResNet-152 on one thread: as published (float32, one image at a
time) against ours.

Ours: batch norms folded, channels_last, batches of 8, in float32 and in bfloat16. Random weights,
224 x 224, one crop. Also the network of the demo. Run: python -m benchmarks.data.features
"""

import argparse
import copy
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from models.features import resnet
from models.features.batches import TINY, Batches, load_network

BATCH = 8


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    print(
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, one thread, torch"
        f" {torch.__version__}"
    )
    torch.manual_seed(0)
    plain = resnet.build_resnet("resnet152").eval().requires_grad_(False)
    images = np.random.default_rng(0).integers(0, 256, (2 * BATCH, 224, 224, 3), np.uint8)
    with torch.inference_mode():
        expected = plain(torch.from_numpy(images[:1]))
    sides: dict[str, Callable[[int], np.ndarray]] = {
        "published: float32, batch 1": lambda n: one_by_one(plain, images[:n])
    }
    for precision in ("float32", "bfloat16"):
        network = load_network("resnet152", copy.deepcopy(plain.state_dict()), precision, "cpu")
        batches = Batches(network, 224, BATCH, "cpu", full=False)
        sides[f"ours: {precision}, batch {BATCH}"] = lambda n, batches=batches: batched(
            batches, images[:n]
        )
    print(f"{'ResNet-152':30}{'frames per CPU-second':>22}{'factor':>9}{'largest difference':>20}")
    rates = {}
    for name, work in sides.items():
        count = 4 if "batch 1" in name else 2 * BATCH
        work(1)
        start = time.process_time()
        found = work(count)
        rates[name] = count / (time.process_time() - start)
        difference = np.abs(found[:1] - expected.numpy()).max()
        factor = rates[name] / next(iter(rates.values()))
        print(f"{name:30}{rates[name]:22.1f}{factor:9.1f}{difference:20.1e}")
    print(f"(values reach {float(expected.abs().max()):.2f})")
    print(f"{'tiny-random, batch 8':30}{tiny():22.0f}")


def one_by_one(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat([network(torch.from_numpy(image[None])) for image in images]).numpy()


def batched(batches: Batches, images: np.ndarray) -> np.ndarray:
    for image in images:
        batches.add(image)
    return batches.drain()


def tiny() -> float:
    """Frames per CPU-second of the demo's network."""
    images = np.random.default_rng(0).integers(0, 256, (160, 64, 64, 3), np.uint8)
    batches = Batches(load_network(TINY, None, "float32", "cpu"), 64, BATCH, "cpu", full=False)
    batched(batches, images[:BATCH])
    start = time.process_time()
    batched(batches, images)
    return len(images) / (time.process_time() - start)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
