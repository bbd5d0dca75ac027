"""What a command costs before it does anything: CPU seconds and memory of whole processes, beside
those of importing torch alone, and what a search adds to torch and to loading its model.

Run: OMP_NUM_THREADS=1 python -m benchmarks.runs.start_up INDEX      (an index of cli.py index)
"""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
REPEATS = 3
INSIDE = """
import sys, time
import numpy, torch
begun = time.process_time()
import cli
from pipeline.search import opening
real, loading = opening.open_index, []
def timed(*given, **more):
    start = time.process_time()
    found = real(*given, **more)
    loading.append(time.process_time() - start)
    return found
opening.open_index = timed
cli.main(["search", sys.argv[1], "a red circle", "--top", "2"])
print(time.process_time() - begun - loading[0], file=sys.stderr)
"""


def cost(*arguments: str) -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of a Python process; the least of some runs."""
    found = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0, arguments
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append((seconds, used.ru_maxrss / 1024))
    return min(found)


@click.command(help=__doc__)
@click.argument("index", type=click.Path(path_type=Path, exists=True))
def main(index: Path) -> None:
    target = str(index.resolve())
    rows = {
        "import torch": ("-c", "import torch"),
        "cli.py --help": ("cli.py", "--help"),
        "cli.py list datasets": ("cli.py", "list", "datasets"),
        "cli.py search INDEX": ("cli.py", "search", target, "a red circle"),
    }
    for name, arguments in rows.items():
        seconds, megabytes = cost(*arguments)
        click.echo(f"{name:<56}{seconds:8.2f} s{megabytes:8.0f} MB")
    added = [
        float(
            subprocess.run(
                [sys.executable, "-c", INSIDE, target],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stderr.splitlines()[-1]
        )
        for _ in range(REPEATS)
    ]
    click.echo(
        f"{'a search, besides torch and loading its model (goal 0.35)':<56}{min(added):8.2f} s"
    )
    click.echo(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
