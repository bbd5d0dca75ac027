"""How long an evaluation took: encoding, ranking, and the memory of the GPU.

    _state/speed/<checkpoint>.json   {device, passes, texts, videos, text_seconds, video_seconds,
                                      rank_seconds, videos_per_second, ms_per_query,
                                      peak_gpu_bytes}

Times differ from run to run, so they lie beside the results and are no part of them: equal
evaluations give equal bytes (pipeline/evaluation/results.py). Encoding contains reading frames or
features. ms_per_query is the time to encode one sentence and to rank the videos for it. With
`speed_passes` the first pass warms up and is not counted (the published `--inference_speed_test`
of CenterCLIP and DGL; docs/specs/centerclip.md), and ranking is scoring alone.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from models.base import RetrievalModel
from pipeline.core.files import atomic_write, disk_name
from pipeline.core.state import STATE
from pipeline.evaluation.retrieve import Encoded, score
from pipeline.processes import World

_FOLDER = "speed"


@dataclass(frozen=True)
class Speed:
    """Seconds of one evaluation, or their means over `passes`. peak_gpu_bytes: None without a
    GPU.
    """

    device: str
    passes: int
    texts: int
    videos: int
    text_seconds: float
    video_seconds: float
    rank_seconds: float
    peak_gpu_bytes: int | None

    @property
    def videos_per_second(self) -> float:
        """Videos read and encoded in a second."""
        return self.videos / max(self.video_seconds, 1e-9)

    @property
    def ms_per_query(self) -> float:
        """Milliseconds to encode a sentence and rank the videos for it."""
        return 1000 * (self.text_seconds + self.rank_seconds) / max(self.texts, 1)

    @property
    def words(self) -> str:
        """One line."""
        memory = self.peak_gpu_bytes
        peak = "" if memory is None else f"   peak GPU memory {memory / 1e6:,.0f} MB"
        counted = "" if self.passes == 1 else f", mean of {self.passes:,} passes"
        return (
            f"videos {self.video_seconds:,.2f} s ({self.videos_per_second:,.1f} a second)   texts"
            f" {self.text_seconds:,.2f} s   ranking {self.rank_seconds:,.2f} s  "
            f" {self.ms_per_query:,.2f} ms a query{peak}   ({self.device}{counted})"
        )


def measure(encoded: Encoded, device: torch.device, rank_seconds: float) -> Speed:
    """Return the speed of one evaluation that has just ended."""
    return Speed(
        device=str(device),
        passes=1,
        texts=len(next(iter(encoded.text.values()))),
        videos=len(next(iter(encoded.video.values()))),
        text_seconds=encoded.seconds["text"],
        video_seconds=encoded.seconds["video"],
        rank_seconds=rank_seconds,
        peak_gpu_bytes=_peak(device),
    )


def repeat(
    model: RetrievalModel, encode: Callable[[], Encoded], passes: int, world: World = World()
) -> Speed:
    """Return the mean speed of `passes` passes over a split, after one that warms up."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    sums = {"text": 0.0, "video": 0.0, "rank": 0.0}
    for n in range(passes + 1):
        encoded = encode()
        start = time.perf_counter()
        score(model, encoded.text, encoded.video, world=world)
        seconds = dict(encoded.seconds) | {"rank": time.perf_counter() - start}
        if n:
            sums = {name: total + seconds[name] for name, total in sums.items()}
    return Speed(
        device=str(device),
        passes=passes,
        texts=len(next(iter(encoded.text.values()))),
        videos=len(next(iter(encoded.video.values()))),
        text_seconds=sums["text"] / passes,
        video_seconds=sums["video"] / passes,
        rank_seconds=sums["rank"] / passes,
        peak_gpu_bytes=_peak(device),
    )


def save_speed(out: Path, checkpoint: str, speed: Speed) -> None:
    """Write the speed of a checkpoint beside the results in `out`."""
    path = out / STATE / _FOLDER / disk_name(checkpoint, ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    derived = {
        "videos_per_second": speed.videos_per_second,
        "ms_per_query": speed.ms_per_query,
    }
    atomic_write(path, json.dumps(asdict(speed) | derived, indent=1).encode() + b"\n")


def read_speed(out: Path, checkpoint: str) -> Speed | None:
    """Return what `save_speed` wrote, or None where nothing usable lies."""
    path = out / STATE / _FOLDER / disk_name(checkpoint, ".json")
    try:
        values = json.loads(path.read_bytes())
        return Speed(**{name: values[name] for name in Speed.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
