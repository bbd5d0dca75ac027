"""Where a training run stands and how it is carried out: what last.pt keeps and is recognised
by, and torch's settings.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.checkpoints.toolkit_file import TRAINING, read_format
from pipeline.processes import World
from pipeline.training.moments import Start


@dataclass(frozen=True)
class Conduct:
    """How a training run is carried out. Only device, threads and world can change a
    result, and then by rounding alone.

    identity: digest of recipe and inputs; a checkpoint of another identity is never continued.
    facts: what a model is built from besides its recipe (vocabulary, tags, sizes); stored in
    best.pt.
    """

    identity: str
    device: torch.device = torch.device("cpu")
    threads: int | None = None  # None: as before the interruption, or torch's default
    world: World = World()
    name: str = "train"
    save_seconds: float = 300.0
    save_steps: int | None = None
    board: Path | None = None
    facts: dict = field(default_factory=dict)
    start: Start | None = None  # another program's training that this one goes on from


@dataclass
class TrainingProgress:
    """Where a training run stands. epoch: finished epochs; position: batches done of the one under
    way; step: steps in all.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    skipped: int = 0
    done: bool = False
    best: dict = field(
        default_factory=dict
    )  # epoch, step, scores and model (raw or ema) of best.pt
    sums: dict = field(default_factory=dict)  # of loss terms since the last line of metrics.jsonl
    summed: int = 0
    epoch_loss: float = 0.0
    epoch_steps: int = 0


@dataclass(frozen=True)
class Summary:
    """How a training run ended. best: epoch, step, scores and model of best.pt."""

    epochs: int
    steps: int
    skipped: int
    best: dict


def resumable(folder: Path, identity: str) -> dict | None:
    """Return the content of `folder`/checkpoints/last.pt if it is of this identity, else None.
    DataError if it is damaged.
    """
    path = Path(folder) / "checkpoints" / "last.pt"
    if not path.exists():
        return None
    state = read_format(path, TRAINING)
    return state if state.get("identity") == identity else None


def set_stale_aside(folder: Path) -> None:
    """Move what a training with other options or inputs left in the folder to its `_previous/`:
    trained weights are never removed.
    """
    stale = [*(folder / "checkpoints").glob("*.pt"), folder / "metrics.jsonl"]
    stale = [path for path in stale if path.exists()]
    if not stale:
        return
    kept = folder / "_previous"
    count = sum(1 for _ in kept.glob("stale-*")) if kept.is_dir() else 0
    for path in stale:
        target = kept / f"stale-{count + 1}" / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


@contextlib.contextmanager
def torch_settings(
    device: torch.device, threads: int, deterministic: bool, detect_anomaly: bool
) -> Iterator[None]:
    """torch's process-wide settings during a training run; restored afterwards."""
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic and torch.backends.cudnn.benchmark
    try:
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.autograd.set_detect_anomaly(detect_anomaly):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
        torch.backends.cudnn.benchmark = before[3]
