"""Is what a finished step wrote still there, byte for byte?

Sizes are compared every time. Content is hashed when a file is not the one that was last looked at
(its size, time or inode differ), and by the command `verify` in any case. `_state/files.jsonl`
remembers under which size, time and inode a file had its recorded digest.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.core.files import file_digest, json_lines, open_no_link
from pipeline.core.state import STATE, Record, read_manifest, read_records
from pipeline.errors import DataError

_SEEN = "files.jsonl"
_NAMES_SHOWN = 3


def recorded(manifest: dict | None, records: Iterable[Record]) -> dict[str, dict]:
    """Return {relative path: {"bytes", "sha256"}} of every file of a finished step: those of its
    items, and those of its store.
    """
    last = {r.id: r for r in records}
    files = {name: o for r in last.values() if r.usable for name, o in r.outputs.items()}
    return files | ((manifest or {}).get("files") or {})


def faults(folder: Path, files: dict[str, dict]) -> dict[str, str]:
    """Return what is wrong with each of the `files` of a step's folder that are not as they were
    written: {relative path: reason}. Nothing that was looked at before is read again.
    """
    seen, found, fresh = _read_seen(folder), {}, {}
    changed = []
    for name, facts in files.items():
        reason, mark = _stat(folder, name, facts)
        if reason:
            found[name] = reason
        elif seen.get(name) != [facts.get("sha256"), *mark]:
            changed.append((name, facts, mark))
    for name, facts, mark in changed:
        if reason := _content(folder, name, facts):
            found[name] = reason
        else:
            fresh[name] = [facts.get("sha256"), *mark]
    _add_seen(folder, fresh)
    return found


def verify(folder: Path, files: dict[str, dict], threads: int) -> dict[str, str]:
    """As `faults`, but every file is read to its end, `threads` at a time. What is damaged is
    remembered, so that the next run makes it again.
    """

    def look(name: str) -> str:
        return _stat(folder, name, files[name])[0] or _content(folder, name, files[name])

    with ThreadPoolExecutor(max(1, threads)) as pool:
        found = {name: why for name, why in zip(files, pool.map(look, files), strict=True) if why}
    _add_seen(folder, {name: [] for name in found})
    return found


def remember(folder: Path, files: dict[str, dict]) -> None:
    """Note that the files that are there now are those just written. Call once, when a step is
    finished; what was noted before is dropped.
    """
    marks = {}
    for name, facts in files.items():
        reason, mark = _stat(folder, name, facts)
        if not reason:
            marks[name] = [facts.get("sha256"), *mark]
    (folder / STATE / _SEEN).unlink(missing_ok=True)
    _add_seen(folder, marks)


def expect_intact(folder: Path) -> None:
    """DataError if a finished step's folder no longer holds what the step wrote. Folders that no
    step of ours made pass.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return
    found = faults(folder, recorded(manifest, read_records(folder / STATE / "items.jsonl")))
    if found:
        raise DataError(
            f"it is not what the step {manifest['step']} wrote: {described(found)}",
            where=folder,
            fix=(
                "Run the command that made this folder again: it makes anew what is missing or"
                " damaged."
            ),
        )


def described(found: dict[str, str]) -> str:
    """Return the first few faults in words."""
    words = [f"{name} {reason}" for name, reason in list(found.items())[:_NAMES_SHOWN]]
    more = len(found) - len(words)
    return "; ".join(words) + (f"; and {more:,} more" if more else "")


def _stat(folder: Path, name: str, facts: dict) -> tuple[str, list[int]]:
    """Return (what is wrong at first sight, [size, mtime_ns, inode])."""
    try:
        stat = os.stat(f"{folder}/{name}")  # noqa: PTH116  (there may be 100,000 of them)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing", []
    if stat.st_size != facts.get("bytes", stat.st_size):
        return f"has {stat.st_size:,} bytes, {facts['bytes']:,} were written", []
    return "", [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _content(folder: Path, name: str, facts: dict) -> str:
    wanted = facts.get("sha256")
    try:
        if wanted is None or file_digest(folder / name) == wanted:
            return ""
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "has the right size and other content"


def _read_seen(folder: Path) -> dict[str, list]:
    try:
        lines = json_lines((folder / STATE / _SEEN).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {line[0]: line[1:] for line in lines if isinstance(line, list) and line}


def _add_seen(folder: Path, marks: dict[str, list]) -> None:
    if not marks:
        return
    lines = b"".join(json.dumps([name, *mark]).encode() + b"\n" for name, mark in marks.items())
    with contextlib.suppress(OSError):  # a folder that is only ours to read: looked at again then
        fd = open_no_link(folder / STATE / _SEEN, os.O_WRONLY | os.O_APPEND)
        with os.fdopen(fd, "ab") as file:
            file.write(lines)
