"""What a run of a step has to do: its items, those already done, and those a finished store can
lend.

Two kinds of stores (Stage.store): "files", where every item stands alone, and "single", where items
are kept in order, so that any change builds a new generation beside the finished one.
"""

import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.files import commit_file
from pipeline.core.stage import Item, Outcome, Stage
from pipeline.core.state import STATE, Journal, Record, manifest_path, read_manifest, read_records
from pipeline.core.workers import Answer
from pipeline.errors import DataError, ItemError


@dataclass(frozen=True)
class Settings:
    """How to run a step; nothing here changes what comes out."""

    jobs: int = 0  # 0: one per core
    retries: int = 1
    max_failures: float = 0.05
    memory_bytes: int = 4 << 30
    force: bool = False
    retry_failed: bool = False
    fail_fast: bool = False
    shard: tuple[int, int] = (0, 1)

    @property
    def workers(self) -> int:
        return self.jobs or len(os.sched_getaffinity(0))


@dataclass
class StepRun:
    """The state of one run of one stage."""

    stage: Stage
    name: str
    fingerprint: str
    settings: Settings
    folder: Path
    sources: list[Path]  # folders of finished stores to reuse items from
    journal: Journal = field(init=False)
    pending: list[tuple[Item, Record]] = field(default_factory=list)
    pending_bytes: int = 0
    flushed_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder / STATE / "items.jsonl")


def in_shard(item_id: str, shard: tuple[int, int]) -> bool:
    """An item's shard depends on its id alone: sha256(id) mod N."""
    index, count = shard
    return (
        int(hashlib.sha256(item_id.encode("utf-8", "surrogateescape")).hexdigest(), 16) % count
        == index
    )


def shard_folder(out: Path, shard: tuple[int, int]) -> Path:
    """Where a part of a sharded run lives; the whole run's own folder for 1 shard."""
    return out if shard[1] == 1 else out / "_parts" / f"{shard[0]:03d}-of-{shard[1]:03d}"


def list_items(stage: Stage, shard: tuple[int, int] = (0, 1)) -> list[Item]:
    """The items of a stage (of one shard of it). DataError if two share an id."""
    seen: dict[str, Item] = {}
    for item in stage.items():
        if item.id in seen:
            raise DataError(
                f"two items have the id {item.id!r}",
                where=item.source or stage.out,
                fix="Rename one of them.",
            )
        seen[item.id] = item
    return [item for item in seen.values() if shard[1] == 1 or in_shard(item.id, shard)]


def choose(work: StepRun, items: list[Item]) -> set[str]:
    """Ids that need no work."""
    keys = {item.id: item.key for item in items}
    valid = [
        r
        for r in work.journal.records.values()
        if r.step == work.fingerprint and keys.get(r.id) == r.key
    ]
    if work.settings.retry_failed:
        valid = [r for r in valid if r.usable]
    if work.stage.store == "files":
        finished = [] if work.settings.force else valid
        return {r.id for r in finished if not r.usable or outputs_exist(work.folder, r)}
    return _choose_prefix(work, items, {r.id for r in valid})


def _choose_prefix(work: StepRun, items: list[Item], valid: set[str]) -> set[str]:
    """A single-writer store holds its items in order: what counts is the longest valid beginning of
    the journal.

    A complete store that needs any change becomes the previous generation: the new one is built
    beside it, borrows its items through `reuse`, and takes its place at `finish`.
    """
    journal = work.journal
    records = list(journal.records.values())
    length = 0
    for record, item in zip(records, items, strict=False):
        if record.id != item.id or record.id not in valid:
            break
        length += 1
    complete = read_manifest(work.folder) is not None
    torn = (
        not complete
        and finishing(work).exists()
        and finishing(work).read_text() != items_digest(items)
    )
    if work.settings.force or torn:
        # torn: killed while the new store took its place, and the inputs changed since: which store
        # is there is unknown
        previous(work).unlink(missing_ok=True)
        _restart(work)
        return set()
    if length == len(records) and (not complete or length == len(items)):
        return {r.id for r in records}
    if complete:
        manifest_path(work.folder).unlink()
        journal.close()
        journal.path.replace(previous(work))
        work.journal = Journal(journal.path).open()
        return set()
    journal.rewrite(records[:length])
    return {r.id for r in records[:length]}


def _restart(work: StepRun) -> None:
    manifest_path(work.folder).unlink(missing_ok=True)
    finishing(work).unlink(missing_ok=True)
    work.journal.rewrite([])


def previous(work: StepRun) -> Path:
    return work.folder / STATE / "previous.jsonl"


def finishing(work: StepRun) -> Path:
    return work.folder / STATE / "finishing"


def outputs_exist(folder: Path, record: Record) -> bool:
    """True if every file of the record is there with its recorded size."""
    try:
        # plain text, not Path: there may be 100,000 of them
        sizes = ((f"{folder}/{name}", facts["bytes"]) for name, facts in record.outputs.items())
        return all(os.stat(path).st_size == size for path, size in sizes)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False


def items_digest(items: list[Item]) -> str:
    """Digest of what there is to do: ids and keys in order."""
    whole = hashlib.sha256()
    for item in items:
        whole.update(f"{item.id}\0{item.key}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def reusable(work: StepRun, todo: list[Item]) -> dict[str, tuple[Record, Path]]:
    stores = [(folder, folder / STATE / "items.jsonl") for folder in work.sources]
    if work.stage.store == "single":
        stores.append((work.folder, previous(work)))
    found: dict[str, tuple[Record, Path]] = {}
    keys = {item.id: item.key for item in todo}
    for folder, path in stores:
        for record in read_records(path):
            answers_today = record.step == work.fingerprint and keys.get(record.id) == record.key
            failure_counts = folder in work.sources and not work.settings.retry_failed
            if answers_today and (record.usable or failure_counts):
                found[record.id] = (record, folder)
    return found


def reuse(work: StepRun, item: Item, record: Record, folder: Path) -> Answer:
    if not record.usable:
        return Answer(
            item, None, ItemError(record.reason, record.message), record.seconds, record.attempts
        )
    if work.stage.store == "single":
        outcome = work.stage.reuse(item, record, folder)
    else:
        outcome = Outcome(
            record.status, None, record.outputs, record.facts, record.reason, record.message
        )
        for name in record.outputs:
            _link(folder / name, work.folder / name)
    return Answer(item, outcome, None, record.seconds, record.attempts)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".tmp-{hashlib.sha256(target.name.encode()).hexdigest()[:16]}"
    temporary.unlink(missing_ok=True)
    os.link(source, temporary)
    commit_file(temporary, target)
