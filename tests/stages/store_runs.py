"""Runs the frames and tensors stages on small inputs, also in a process of their own that can be
killed.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pipeline.core.artefact import Artefact
from pipeline.core.runner import Settings, run
from pipeline.core.stage import Stage
from pipeline.core.state import read_manifest
from pipeline.stages.frames import Stage as Frames
from pipeline.stages.tensors import Stage as Tensors
from tests.stores.frame_store.frame_clips import images, write_video

ONE = Settings(jobs=1, max_failures=1.0)


def videos(folder: Path, count: int = 5, size: tuple[int, int] = (48, 64)) -> Artefact:
    """A raw folder of small videos with 3, 4, 5 ... frames."""
    for n in range(count):
        write_video(folder / f"video{n:02d}.mp4", images(n, 3 + n, *size))
    return Artefact("video_files", folder)


def frames(source: Artefact, out: Path, settings: Settings = ONE, **options: object) -> Artefact:
    manifest = go(Frames(Frames.Options(**options), {"videos": source}, out), settings)
    return Artefact("frame_store", out, fingerprint="frames", content=manifest["content"])


def tensors(
    inputs: dict[str, Artefact], out: Path, settings: Settings = ONE, **options: object
) -> dict:
    return go(tensors_stage(inputs, out, **options), settings)


def go(stage: Stage, settings: Settings = ONE, reuse_from: Iterable[Path] = ()) -> dict:
    """Run a stage; with one job in this process, which saves the start of a worker."""
    if settings.workers == 1:
        stage.runs = "inline"
    return run(stage, "step", settings, reuse_from)


def tensors_stage(inputs: dict[str, Artefact], out: Path, **options: object) -> Tensors:
    given = {name: inputs.get(name) for name in Tensors.needs}
    return Tensors(Tensors.Options(**options), given, out)


def big_file(folder: Path, rows: dict[str, np.ndarray]) -> Artefact:
    """A BigFile of {video id: float32 (T, F)} as other tools write it."""
    folder.mkdir(parents=True)
    ids = {video: [f"{video}_{n}" for n in range(len(values))] for video, values in rows.items()}
    matrix = np.concatenate(list(rows.values())).astype("<f4")
    (folder / "feature.bin").write_bytes(matrix.tobytes())
    (folder / "shape.txt").write_text(f"{len(matrix)} {matrix.shape[1]}")
    (folder / "id.txt").write_text(
        " ".join(i for part in ids.values() for i in part), encoding="iso-8859-1"
    )
    (folder / "video2frames.txt").write_text(repr(ids))
    return Artefact("features", folder)


def killed_runs(make: Callable[[], Stage], out: Path, delays: list[float]) -> None:
    """Start `run(make())` in a forked process for each delay and SIGKILL it that many seconds after
    it has begun.
    """
    context = multiprocessing.get_context("fork")
    for delay in delays:
        child = context.Process(target=_run_inline, args=(make,))
        child.start()
        while child.is_alive() and not (out / "_state").exists():
            time.sleep(0.002)
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.join()


def _run_inline(make: Callable[[], Stage]) -> None:
    go(make())


def is_finished(out: Path) -> bool:
    return read_manifest(out) is not None
