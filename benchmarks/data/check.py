"""How long `check` takes for 100,000 videos that it has looked at before (target: under 5 s).

.venv/bin/python -m benchmarks.data.check
"""

import platform
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.data.state import finished
from pipeline.commands.check import take
from pipeline.core.artefact import Artefact
from pipeline.core.manifest import stage_fingerprint
from pipeline.core.state import STATE, Journal
from pipeline.core.todo import Settings, list_items
from pipeline.datasets.base import open_dataset
from pipeline.datasets.parts.inventory import Expected, Inventory
from pipeline.stages.probe import Stage

COUNT = 100_000
FACTS = {"frames": 45, "fps": 3.0, "seconds": 15.0, "width": 298, "height": 224, "codec": "h264"}


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        dataset, videos, out = _make(folder)
        dataset_, expected = open_dataset(dataset), Expected(fps=3, short_side=224)
        take(dataset_, videos, out, expected, Settings())  # writes the manifest
        start, cpu = time.perf_counter(), time.process_time()
        found = take(dataset_, videos, out, expected, Settings())
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    finally:
        shutil.rmtree(folder)
    _print(found, wall, cpu)


def _make(folder: Path) -> tuple[dict, Path, Path]:
    """A caption per video, the videos (a few bytes each), and a journal that knows all of them."""
    videos, out = folder / "videos", folder / "out"
    for n in range(COUNT):
        path = videos / f"{n // 1000:03d}" / f"clip{n}.mp4"
        if n % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"source %d" % n)
    captions = folder / "test.caption.txt"
    captions.write_text(
        "".join(f"clip{n}#0 somebody does the thing number {n}\n" for n in range(COUNT))
    )
    stage = Stage(Stage.Options(), {"videos": Artefact("video_files", videos)}, out)
    step, journal = stage_fingerprint(stage), Journal(out / STATE / "items.jsonl").open()
    journal.append(
        finished(item, step, facts=FACTS | {"sha256": f"{n:064x}"})
        for n, item in enumerate(list_items(stage))
    )
    journal.close()
    return {"type": "caption_files", "root": str(captions), "split": "test"}, videos, out


def _print(found: Inventory, wall: float, cpu: float) -> None:
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(
        f"{found.files:,} files that were looked at before, {found.videos:,} captions,"
        f" {len(found.faults)} faults"
    )
    print(f"checked in {wall:.2f} s ({cpu:.2f} CPU s)   target: 5 s")


if __name__ == "__main__":
    main()
