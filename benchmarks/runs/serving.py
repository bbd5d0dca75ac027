"""`serve` on an index of your own: how soon it answers, what a typed query costs, and 50 clients at
once.

The model's own time is that of the same questions asked one after the other inside this process.

Run: python -m benchmarks.runs.serving INDEX      (an index of python cli.py index; a minute)
"""

import http.client
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import psutil

ROOT = Path(__file__).resolve().parents[2]
CLIENTS, EACH = 50, 8
_OWN = threading.local()
WORDS = ("red", "blue", "dog", "circle", "left", "car", "man", "green", "grows", "beach")


def questions(count: int) -> list[str]:
    """Sentences that differ, so that nothing answers from memory."""
    return [f"a {WORDS[n % 10]} {WORDS[n // 10 % 10]} moves {n}" for n in range(count)]


def start(index: Path) -> tuple[subprocess.Popen, str, float]:
    """A server, its address, and the seconds until its first answer."""
    begun = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), "serve", str(index), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    address = server.stdout.readline().strip()
    ask(address, "anything")
    return server, address, time.perf_counter() - begun


def ask(address: str, sentence: str) -> float:
    """Seconds of one question over the connection of this thread, as a browser keeps one; raises
    for anything but an answer.
    """
    if not hasattr(_OWN, "connection"):
        _OWN.connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc)
    begun = time.perf_counter()
    fields = urllib.parse.urlencode({"q": sentence, "top": 20})
    _OWN.connection.request("GET", f"/api/search?{fields}")
    reply = _OWN.connection.getresponse()
    body = reply.read()
    seconds = time.perf_counter() - begun
    assert reply.status == 200 and b'"rank":20' in body
    return seconds


def inside(index: Path, sentences: list[str]) -> float:
    """CPU seconds of a question without a server."""
    from pipeline.search.opening import open_index
    from pipeline.search.question import Part
    from pipeline.search.search import Searcher, of_index
    from pipeline.stores.index.reader import IndexStore

    store = IndexStore.open(index)
    model, info = open_index(index, store)
    searcher = Searcher(of_index(model, info, store, None), 20)
    searcher.search([Part("words", "anything")])
    begun = time.process_time()
    for sentence in sentences:
        searcher.search([Part("words", sentence)])
    return (time.process_time() - begun) / len(sentences)


@click.command(help=__doc__)
@click.argument("index", type=click.Path(path_type=Path, exists=True))
def main(index: Path) -> None:
    own = inside(index, questions(50))
    server, address, seconds = start(index)
    process = psutil.Process(server.pid)
    try:
        before = sum(process.cpu_times()[:2])
        alone = [ask(address, sentence) for sentence in questions(100)]
        cpu = (sum(process.cpu_times()[:2]) - before) / len(alone)
        with ThreadPoolExecutor(CLIENTS) as clients:
            begun = time.perf_counter()
            busy = list(clients.map(lambda s: ask(address, s), questions(CLIENTS * EACH)))
            wall = time.perf_counter() - begun
    finally:
        server.terminate()
        ended = server.wait(timeout=20)
    p95 = statistics.quantiles(busy, n=20)[-1]
    rows = [
        ("start to first answer, s", seconds, "5"),
        ("a typed query, CPU ms", 1000 * cpu, "30"),
        ("of these the model and the ranking, CPU ms", 1000 * own, ""),
        ("one client, ms (median)", 1000 * statistics.median(alone), ""),
        (f"{CLIENTS} clients at once, ms (p95)", 1000 * p95, ""),
        ("answers a second at that load", len(busy) / wall, ""),
        (
            f"p95 less what {CLIENTS} questions of the model take, ms",
            1000 * (p95 - CLIENTS * own),
            "100",
        ),
    ]
    for name, value, goal in rows:
        click.echo(f"{name:<52}{value:10.1f}{f'   goal {goal}' if goal else ''}")
    click.echo(
        f"errors 0 of {len(busy)}; SIGTERM ended it with {ended};"
        f" {platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"
    )


if __name__ == "__main__":
    main()
