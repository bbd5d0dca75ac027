"""Download one file, going on where an earlier attempt ended. What is not complete has no name that
anybody looks at.

A partial file carries a note (address, total, the server's mark of the version). It is continued
only when the server proves by that mark that it is still the same file, or when a checksum will
tell in the end.
"""

import contextlib
import email.utils
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.core.files import atomic_write, file_digest
from pipeline.errors import DataError, ItemError
from pipeline.fetching import credentials, http
from pipeline.fetching.credentials import Login
from pipeline.fetching.http import Manners, Reply, TransferError
from pipeline.fetching.links import Link, checksum_kind
from pipeline.fetching.rate_limit import RateLimit

_WORTH_A_NEW_COUNT = (
    1 << 20
)  # bytes; an attempt that brought so much does not count as one that failed
_LONGEST_PAUSE = 60.0
_LOCK_SECONDS = 5.0
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Rules:
    """tries: attempts in a row that bring nothing. pause: seconds before the second one; doubles.
    largest: bytes.
    """

    manners: Manners = Manners()
    tries: int = 5
    pause: float = 1.0
    largest: int = 16 << 30


@dataclass
class _Note:
    """What is known about a partial file. address: SHA-256 of its address, which may hold a key.
    etag, modified: the server's marks. sha256: set when it is complete.
    """

    address: str
    etag: str = ""
    modified: str = ""
    total: int | None = None
    sha256: str = ""


def download(link: Link, part: Path, rules: Rules, login: Login | None, limit: RateLimit) -> str:
    """Complete `part` (and its note beside it) and return its SHA-256; nothing is asked for if it
    is complete.

    Raises ItemError: missing (404), io_error, too_large, unreadable (a web page), bad_value
    (checksum); DataError when the server wants another user or password, because it will for every
    file; OSError when the disk is full.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    with _locked(part), _discarded_when_useless(part):
        note = _read_note(part, link)
        if note.sha256:
            return note.sha256
        failures, most = 0, part.stat().st_size
        while True:
            before = part.stat().st_size
            try:
                _transfer(link, part, note=note, rules=rules, login=login, limit=limit)
                return _complete(link, part, note, is_resumed=before > 0)
            except TransferError as error:
                now = part.stat().st_size
                failures = 0 if now - most >= _WORTH_A_NEW_COUNT else failures + 1
                most = max(
                    most, now
                )  # what was lost and came again is no progress, so this loop ends
                if failures >= rules.tries:
                    raise ItemError("io_error", f"{error} (tried {failures} times)") from error
                time.sleep(max(_pause(rules, link.url, failures), min(error.after, _LONGEST_PAUSE)))


@contextlib.contextmanager
def _discarded_when_useless(part: Path) -> Iterator[None]:
    """Remove the partial file where no later attempt can go on with it."""
    try:
        yield
    except ItemError as error:
        if error.reason != "io_error" or not part.stat().st_size:
            discard(part)
        raise


def discard(part: Path) -> None:
    """Remove a partial or complete download and its note."""
    part.unlink(missing_ok=True)
    _note_path(part).unlink(missing_ok=True)


def _transfer(
    link: Link, part: Path, note: _Note, rules: Rules, login: Login | None, limit: RateLimit
) -> None:
    have = part.stat().st_size
    if have and have == note.total:
        return
    mark = note.etag or note.modified
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and mark:
        headers["If-Range"] = mark
    with http.get(link.url, headers, login, rules.manners) as reply:
        start = _start(reply, have, link, part, note)
        if start == 0:
            note.etag, note.modified, note.total = (
                _etag(reply),
                reply.headers.get("Last-Modified", ""),
                reply.length,
            )
            if note.total is not None and note.total > rules.largest:
                raise ItemError("too_large", f"{note.total:,} bytes; {rules.largest:,} are allowed")
            if not reply.ends_itself and not link.checksum:
                raise ItemError(
                    "io_error",
                    "the server does not say how long the file is, so its end cannot be known",
                )
            _write_note(part, note)
        _receive(reply, part, start=start, note=note, rules=rules, limit=limit)


def _start(reply: Reply, have: int, link: Link, part: Path, note: _Note) -> int:
    """Return where in the file this answer begins. Raises as `download`."""
    if reply.status == 206:
        match = _RANGE.fullmatch(reply.headers.get("Content-Range", "").strip())
        same = not note.etag or _etag(reply) in ("", note.etag)
        if (
            match
            and have
            and int(match[1]) == have
            and same
            and note.total in (None, int(match[3]))
        ):
            note.total = int(match[3])
            return have
    if reply.status == 200:
        if reply.headers.get_content_type() == "text/html" and "Content-Type" in reply.headers:
            raise ItemError("unreadable", "the server sent a web page instead of a video")
        if reply.headers.get("Content-Encoding", "identity") != "identity":
            raise ItemError(
                "unreadable", f"sent in the encoding {reply.headers['Content-Encoding']!r:.40}"
            )
        return 0
    if reply.status in (206, 416):
        _forget(part, note)
        raise TransferError("the server has another version of the file; starting again")
    raise _refusal(reply, link)


def _refusal(reply: Reply, link: Link) -> Exception:
    status = reply.status
    if status in (401, 407):
        way = reply.headers.get("WWW-Authenticate", "").partition(" ")[0]
        return DataError(
            (
                "the server asks for a user name and password, or rejects these"
                f" ({status} {way[:20]})"
            ).rstrip(),
            where=link.shown,
            fix=(
                f"Set {credentials.USER} and {credentials.PASSWORD}, or give --netrc FILE; what is"
                " done is kept."
            ),
        )
    if status in (404, 410):
        return ItemError("missing", f"the server does not have it ({status})")
    if status in _AGAIN:
        return TransferError(f"the server answered {status}", after=_retry_after(reply))
    return ItemError("io_error", f"the server answered {status}")


def _receive(
    reply: Reply, part: Path, start: int, note: _Note, rules: Rules, limit: RateLimit
) -> None:
    position = start
    with part.open("r+b") as file:
        file.truncate(start)
        file.seek(start)
        for data in reply.chunks():
            position += len(data)
            if position > min(rules.largest, rules.largest if note.total is None else note.total):
                raise ItemError(
                    "too_large", f"more bytes than announced or allowed ({rules.largest:,})"
                )
            file.write(data)
            limit.wait_for(len(data))
    if note.total is None:
        note.total = position
    if position < note.total:
        raise TransferError(f"the connection ended after {position:,} of {note.total:,} bytes")


def _complete(link: Link, part: Path, note: _Note, is_resumed: bool) -> str:
    """Check what has come, and note that it is complete."""
    if link.checksum:
        with part.open("rb") as file:
            found = hashlib.file_digest(file, checksum_kind(link.checksum)).hexdigest()
        if found != link.checksum:
            _forget(part, note)
            if is_resumed:  # the first half may have been of another version
                raise TransferError("the two halves belong to different files; starting again")
            raise ItemError(
                "bad_value", f"its {checksum_kind(link.checksum)} is {found}, not {link.checksum}"
            )
    note.sha256 = file_digest(part)
    _write_note(part, note)
    return note.sha256


def _etag(reply: Reply) -> str:
    """Return the strong mark of a version; weak ones do not promise equal bytes."""
    tag = reply.headers.get("ETag", "")
    return "" if tag.startswith("W/") else tag


def _retry_after(reply: Reply) -> float:
    text = reply.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return float(text)
    with contextlib.suppress(ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _pause(rules: Rules, url: str, failures: int) -> float:
    # many workers must not come back in the same instant; the address spreads them
    spread = (
        0.75 + int(hashlib.sha256(f"{failures} {url}".encode()).hexdigest()[:4], 16) / 0xFFFF / 2
    )
    return min(_LONGEST_PAUSE, rules.pause * 2 ** max(0, failures - 1)) * spread


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Create the file if need be, and hold it: a worker of a killed run may live half a second
    longer than the run.
    """
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ItemError("io_error", "another process is downloading it") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _note_path(part: Path) -> Path:
    return part.with_suffix(".json")


def _write_note(part: Path, note: _Note) -> None:
    atomic_write(_note_path(part), json.dumps(asdict(note)))


def _read_note(part: Path, link: Link) -> _Note:
    """Return the note of a partial file that can be continued; else the file is emptied."""
    try:
        note = _Note(**json.loads(_note_path(part).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        note = _Note("")
    size, address = part.stat().st_size, hashlib.sha256(link.url.encode()).hexdigest()
    can_continue = note.address == address and bool(note.etag or note.modified or link.checksum)
    is_whole = note.address == address and bool(note.sha256) and note.total == size
    if is_whole or (
        can_continue and not note.sha256 and (note.total is None or size <= note.total)
    ):
        return note
    fresh = _Note(address)
    _forget(part, fresh)
    return fresh


def _forget(part: Path, note: _Note) -> None:
    os.truncate(part, 0)
    _note_path(part).unlink(missing_ok=True)
    note.etag = ""
    note.modified = ""
    note.total = None
    note.sha256 = ""
