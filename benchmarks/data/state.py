"""How long a step takes to recognise 100,000 finished items (target: under 5 s), and what Ctrl-C
safety costs per item.

.venv/bin/python -m benchmarks.data.state
"""

import platform
import tempfile
import time
from pathlib import Path

from pipeline.core.artefact import Artefact
from pipeline.core.manifest import stage_fingerprint
from pipeline.core.runner import run
from pipeline.core.stage import Item
from pipeline.core.state import STATE, Journal, Record
from pipeline.core.todo import list_items
from pipeline.stages.compress import Stage

COUNT = 100_000
_FACTS = {"frames": 12, "seconds": 4.0, "decoded": 100}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        raw, out = Path(name, "raw"), Path(name, "out")
        for n in range(COUNT):
            path = raw / f"{n // 1000:03d}" / f"clip{n}.mp4"
            if n % 1000 == 0:
                path.parent.mkdir(parents=True)
                (out / path.parent.name).mkdir(parents=True)
            path.write_bytes(b"source %d" % n)
        stage = Stage(Stage.Options(), {"videos": Artefact("video_files", raw)}, out)
        items = list_items(stage)
        _pretend_done(stage, items, out)
        run(stage, "compress")  # writes the manifest
        start, cpu = time.perf_counter(), time.process_time()
        run(stage, "compress")
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(f"{COUNT:,} finished items recognised in {wall:.2f} s ({cpu:.2f} CPU s)   target: 5 s")


def finished(item: Item, step: str, **found: dict) -> Record:
    """The record of an item that was worked on before; found: its outputs and facts."""
    return Record(item.id, item.key, step, "ok", source=item.source, seconds=0.1, **found)


def _pretend_done(stage: Stage, items: list, out: Path) -> None:
    step = stage_fingerprint(stage)
    journal = Journal(out / STATE / "items.jsonl").open()
    records = []
    for item in items:
        (out / f"{item.id}.mp4").write_bytes(b"done")
        outputs = {f"{item.id}.mp4": {"bytes": 4, "sha256": "0" * 64}}
        records.append(finished(item, step, outputs=outputs, facts=_FACTS))
    journal.append(records)
    journal.close()


if __name__ == "__main__":
    main()
