"""What the user sees while a run goes on: one line when a step ends, progress, warnings; everything
on stderr.

On a terminal progress is a bar with rate and time left; elsewhere a plain line every 30 s.
`--log-json` prints one JSON object per line instead.
"""

import contextlib
import functools
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.visible import one_line, unfiltered, visible

_LINE_SECONDS = 30.0
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
logger = logging.getLogger("tvrkit")


def set_up(json_lines: bool = False, verbose: bool = False) -> None:
    """Send the toolkit's log to stderr. Call once, from the command line."""
    once.cache_clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if json_lines else logging.Formatter("%(message)s"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False


class _Visible(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        return json.dumps(facts | getattr(record, "facts", {}))


def info(message: str, **facts: object) -> None:
    """A line for the user; `facts` are kept apart for --log-json."""
    logger.info(message, extra={"facts": facts})


@functools.cache
def once(message: str) -> None:
    """Log a line at most once per command, however often it is called."""
    info(message)


def plain(text: str) -> str:
    """Return a foreign name as it may be printed: control characters, marks of direction and bytes
    that are no text are escaped.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def warning(message: str, **facts: object) -> None:
    logger.warning(message, extra={"facts": facts})


@contextlib.contextmanager
def errors_only() -> Iterator[None]:
    """Log errors only while the block runs: for every process but the first."""
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class _ToFile(logging.StreamHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Say nothing: what fails here (a full disk) fails in the run as well, which says so."""


@contextlib.contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Also append the log to a file (with times) while the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o666)
    stream = os.fdopen(fd, "a", encoding="utf-8", errors="backslashreplace")
    handler = _ToFile(stream)
    handler.setFormatter(_Visible("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):  # a full disk: the run itself says so
            stream.close()


def pretty_json(value: object) -> str:
    """`value` as JSON for people; bytes of names that are no UTF-8 as escapes that read back."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def step_line(name: str, manifest: dict, tally: dict[str, int], seconds: float) -> None:
    """compress   288 items   done (1 new, 287 kept)      1.4 s   1 damaged (clip7)

    tally: items made "new", taken over ("kept") and no longer there ("removed") in this run; none
    of them: the step was up to date.
    """
    counts = manifest["counts"]
    total = sum(counts.values())
    named = manifest.get("named") or {}
    notes = [
        f"{counts[s]:,} {s}{names(named.get(s) or [], counts[s])}"
        for s in ("damaged", "failed")
        if counts.get(s)
    ]
    shown = [f"{tally.get(k, 0):,} {k}" for k in ("new", "kept")]
    shown += [f"{tally[k]:,} {k}" for k in ("removed",) if tally.get(k)]
    state = f"done ({', '.join(shown)})" if tally else "up to date"
    tail = f"   {', '.join(notes)}" if notes else ""
    word = "item" if total == 1 else "items"
    info(
        f"{name:<20} {total:>7,} {word:<6} {state:<32} {seconds:>8.1f} s{tail}",
        step=name,
        seconds=round(seconds, 2),
        **{key: tally.get(key, 0) for key in ("new", "kept", "removed")},
    )


def names(first: list[str], count: int) -> str:
    """ " (a, b, c and 5 more)": the first few ids of `count`; "" without any."""
    if not first:
        return ""
    shown = ", ".join(one_line(name) for name in first)
    more = count - len(first)
    return f" ({shown} and {more:,} more)" if more > 0 else f" ({shown})"


def item_failed(step: str, record: object) -> None:
    """One sentence about an item that was set aside."""
    _about(step, record, "Set aside.")


def item_damaged(step: str, record: object) -> None:
    """One sentence about an item of which only a part could be used."""
    _about(step, record, "The part that could be read is used.")


def _about(step: str, record: object, end: str) -> None:
    source = f" ({record.source})" if record.source else ""
    what = f"{record.id}: {record.reason}: {record.message}{source}"
    warning(one_line(f"{step}: {what}. {end}"), step=step, id=record.id)


def noted(step: str, records: list) -> None:
    """A line on sound items whose picture was changed in a way worth a note (HDR, sizes)."""
    found = [record for record in records if record.status == "ok" and record.message]
    if found:
        first = f"{plain(found[0].id)}: {found[0].message}"
        info(f"{step}: {len(found):,} of {len(records):,} items with a note, e.g. {first}")


class Progress:
    """Progress of a step over its items. `done`: items that were finished before."""

    def __init__(self, name: str, total: int, done: int = 0):
        self._name = name
        self._total = total
        self._done = done
        self._before = done
        self._failed = 0
        self._start = self._last = time.monotonic()
        self._bar = None

    def __enter__(self) -> "Progress":
        if self._total - self._done > 1 and sys.stderr.isatty() and logger.handlers:
            self._bar = _bar(self._name, self._total, self._done)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, failed: bool = False) -> None:
        """One more item answered."""
        self._done += 1
        self._failed += failed
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._done, failed=self._failed)
        elif time.monotonic() - self._last > _LINE_SECONDS:
            self._last = time.monotonic()
            self._line()

    def _line(self) -> None:
        rate = (self._done - self._before) / (time.monotonic() - self._start)
        left = (self._total - self._done) / rate if rate else float("inf")
        failed = f"   {self._failed:,} failed" if self._failed else ""
        info(
            f"{self._name:<20} {self._done:>7,} of {self._total:,}   {rate:,.1f} per s   left"
            f" {_span(left)}{failed}"
        )


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bar(name: str, total: int, done: int):
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    class Rate(TextColumn):
        def render(self, task):
            from rich.text import Text

            return Text(f"{task.speed or 0:,.1f} per s")

    bar = Progress(
        TextColumn(f"{name:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(""),
        TextColumn("{task.fields[failed]} failed"),
        TimeRemainingColumn(),
        console=Console(file=unfiltered(sys.stderr)),
        transient=True,
    )
    bar.add_task(name, total=total, completed=done, failed=0)
    return bar
