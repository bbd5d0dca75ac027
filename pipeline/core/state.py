"""What a step remembers on disk: digests, journal, manifest, quarantine. The only code that knows
the state files.

A step's folder holds its artefacts and `_state/`: `items.jsonl` (journal, one O_APPEND write per
item), `failed/<id>.json` (quarantine), `manifest.json` (written last: exists and matches = step
done), `lock`, `log.txt`, `digests.jsonl`.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from pipeline.core.files import atomic_write, disk_name, json_lines

STATE = "_state"


def canonical(value: object) -> bytes:
    """`value` as JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str
    ).encode()


def digest(value: object) -> str:
    """sha256 hex of bytes, or of the canonical JSON of anything else."""
    return hashlib.sha256(value if isinstance(value, bytes) else canonical(value)).hexdigest()


@dataclass
class Record:
    """One line of the journal: how one item ended. `step` is the fingerprint it was made under."""

    id: str
    key: str
    step: str
    status: str  # ok | damaged | failed
    reason: str = ""
    message: str = ""
    source: str = ""
    attempts: int = 1
    seconds: float = 0.0
    outputs: dict[str, dict] = field(default_factory=dict)
    facts: dict = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return self.status != "failed"

    @property
    def content(self) -> str:
        """Digest of what the item became: of its output files, else of its inputs and step."""
        return digest(
            {k: v.get("sha256") for k, v in self.outputs.items()}
            if self.outputs
            else [self.key, self.step]
        )

    def to_json(self) -> bytes:
        return json.dumps(
            {k: v for k, v in vars(self).items() if v not in ("", {})}, ensure_ascii=True
        ).encode()

    @classmethod
    def from_json(cls, line: bytes | str) -> "Record":
        """Raise ValueError if the line is not a record (torn by a crash, or written by something
        else).
        """
        value = json.loads(line)
        if not isinstance(value, dict) or not value.keys() >= _REQUIRED:
            raise ValueError("not a journal record")
        return cls(**{k: v for k, v in value.items() if k in _RECORD_FIELDS})


# what readers of a manifest rely on
_IN_MANIFEST = frozenset({"step", "stage", "makes", "content", "counts"})
_REQUIRED = frozenset({"id", "key", "step", "status"})
_RECORD_FIELDS = frozenset(f.name for f in fields(Record))


class Journal:
    """The append-only list of records of a step. The last line of an id wins; a torn last line is
    cut off on open.
    """

    def __init__(self, path: Path):
        self.path = path
        self.records: dict[str, Record] = {}
        # the last usable line of an item that has failed since: its files are still there
        self.superseded: dict[str, Record] = {}
        self._fd: int | None = None

    def load(self) -> "Journal":
        """Read the journal without changing it."""
        for record in read_records(self.path):
            self._put(record)
        return self

    def open(self) -> "Journal":
        """Read it, cut a torn tail, and open it for appending."""
        self.load()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        os.ftruncate(self._fd, _length_of_whole_lines(self.path))
        return self

    def append(self, records: Iterable[Record], sync: bool = False) -> None:
        """Write the records in one call; with `sync` they survive a power failure, else a killed
        process.
        """
        lines = []
        for record in records:
            self._put(record)
            lines.append(record.to_json() + b"\n")
        if lines:
            _write_all(self._fd, b"".join(lines))
        if sync:
            os.fsync(self._fd)

    def _put(self, record: Record) -> None:
        before = self.records.pop(record.id, None)  # keep the order of the last writes
        self.records[record.id] = record
        if record.usable:
            self.superseded.pop(record.id, None)
        elif before is not None and before.usable:
            self.superseded[record.id] = before

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replace the whole journal atomically (items that no longer exist, forgotten failures)."""
        was_open = self._fd is not None
        self.close()
        self.records = {r.id: r for r in records}
        self.superseded = {}
        atomic_write(self.path, b"".join(r.to_json() + b"\n" for r in self.records.values()))
        if was_open:
            self.open()

    def close(self) -> None:
        if self._fd is not None:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = None


def read_records(path: Path) -> Iterator[Record]:
    """Yield the whole lines of a journal file, oldest first; nothing if the file is missing."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return
    for value in json_lines(data):
        if isinstance(value, dict) and value.keys() >= _REQUIRED:
            yield Record(**{k: v for k, v in value.items() if k in _RECORD_FIELDS})


def _length_of_whole_lines(path: Path) -> int:
    size = path.stat().st_size
    with path.open("rb") as file:
        position = size
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            end = file.read(position - start).rfind(b"\n")
            if end >= 0:
                return start + end + 1
            position = start
    return 0


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def manifest_path(folder: Path) -> Path:
    return folder / STATE / "manifest.json"


def replacing(folder: Path) -> Path:
    """Return where a step notes that its new result is taking the place of the old one."""
    return folder / STATE / "replacing"


def read_manifest(folder: Path) -> dict | None:
    """Return the manifest of a finished step, or None: unfinished, damaged, or killed while a new
    result took the place of the old one.
    """
    found = read_json(manifest_path(folder))
    if found is None or not found.keys() >= _IN_MANIFEST or replacing(folder).exists():
        return None
    return found


def read_json(path: Path) -> dict | None:
    """Return the JSON object in a state file, or None if there is no file, or it holds something
    else.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def usable_records(folder: Path) -> list[Record]:
    """Return the ok and damaged records of a finished step, in item order (`finish` compacts the
    journal to it).
    """
    last = {}
    for record in read_records(folder / STATE / "items.jsonl"):
        last.pop(record.id, None)
        last[record.id] = record
    return [r for r in last.values() if r.usable]


def stored_bytes(records: Iterable[Record]) -> int:
    """Bytes of what the items became: of their output files, else as their facts say."""
    records = list(records)
    of_files = sum(o.get("bytes", 0) for r in records for o in r.outputs.values())
    return of_files or sum(int(r.facts.get("bytes", 0)) for r in records)


def failure_path(folder: Path, item_id: str) -> Path:
    """Return where the quarantine of a step keeps what went wrong with an item."""
    return folder / STATE / "failed" / disk_name(item_id.replace("/", "%2F"), ".json")


def write_failure(folder: Path, record: Record, detail: str = "") -> None:
    """Quarantine: one readable file per failed item."""
    path = failure_path(folder, record.id)
    body = {k: getattr(record, k) for k in ("id", "source", "reason", "message", "attempts")}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(
        path, json.dumps(body | ({"detail": detail} if detail else {}), indent=1).encode() + b"\n"
    )


def forget_failure(folder: Path, item_id: str) -> None:
    failure_path(folder, item_id).unlink(missing_ok=True)


def match_failures(folder: Path, records: Iterable[Record]) -> None:
    """Bring the quarantine to exactly the failed ones of `records`."""
    wanted = {failure_path(folder, r.id): r for r in records if not r.usable}
    present = set((folder / STATE / "failed").glob("*"))
    for path in present - wanted.keys():
        path.unlink()
    for path in wanted.keys() - present:
        write_failure(folder, wanted[path])
