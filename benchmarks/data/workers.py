"""Whether compress stays within 10 % of linear from 1 worker to as many as there are cores: clips
per CPU-second.

    .venv/bin/python -m benchmarks.data.workers

The demo's corpus (288 clips) is compressed to 10 fps and 224 pixels with the preset medium, so that
a clip costs what a real one does and the start of a worker (0.3 s) weighs little. CPU seconds of
all processes; a pool that waits, copies or serialises shows as more CPU or, on an idle machine, as
less speed-up in wall time.
"""

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.registry import ROOT

CLIPS = 288
_HEAVY = ("--fps", "10", "--preset", "medium")


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.processor() or platform.machine()}, {cores} cores")
    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name, "corpus")
        _cli("synthesize", "--in", "demo", "--out", str(corpus))
        rows = [
            (jobs, *_compress(corpus, Path(name, f"out{n}"), jobs))
            for n, jobs in enumerate([1, cores, 1, cores])
        ]
    for jobs, cpu, wall in rows:
        print(f"{jobs} workers   {CLIPS / cpu:6.2f} clips per CPU-second   {wall:5.1f} s wall")
    one = min(cpu for jobs, cpu, _ in rows if jobs == 1)
    many = min(cpu for jobs, cpu, _ in rows if jobs == cores)
    print(f"{cores} workers do {one / many:.3f} of the work per CPU-second of one (must reach 0.9)")


def _compress(corpus: Path, out: Path, jobs: int) -> tuple[float, float]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    _cli("compress", "--in", str(corpus), "--out", str(out), "--jobs", str(jobs), *_HEAVY)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - start


def _cli(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *arguments],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )


if __name__ == "__main__":
    main()
