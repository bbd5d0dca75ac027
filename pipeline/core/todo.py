"""What a run of a step has to do: its items, those already done, and those a finished store can
lend.

Two kinds of stores (Stage.store): "files", where every item stands alone, and "single", where items
are kept in order, so that what counts is the longest valid beginning.
"""

import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.files import link_or_copy
from pipeline.core.stage import Item, Outcome, Stage
from pipeline.core.state import STATE, Journal, Record, manifest_path, read_manifest, read_records
from pipeline.core.work.answer import Answer
from pipeline.core.work.settings import Settings
from pipeline.errors import DataError, ItemError


@dataclass
class StepRun:
    """The state of one run of one stage."""

    stage: Stage
    name: str
    fingerprint: str
    settings: Settings
    folder: Path
    sources: list[Path]  # folders of finished stores to reuse items from
    lost: frozenset[str] = frozenset()  # files of the finished result that are missing or damaged
    usable_before: frozenset[str] = frozenset()  # ids of the result that this one replaces
    borrowed: int = 0  # items taken over from `sources`
    journal: Journal = field(init=False)
    pending: list[tuple[Item, Record]] = field(default_factory=list)
    pending_bytes: int = 0
    pending_new: int = 0  # of them made in this run
    flushed_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder / STATE / "items.jsonl")


def in_shard(item_id: str, shard: tuple[int, int]) -> bool:
    """Return an item's shard depends on its id alone: sha256(id) mod N."""
    index, count = shard
    return (
        int(hashlib.sha256(item_id.encode("utf-8", "surrogateescape")).hexdigest(), 16) % count
        == index
    )


def shard_folder(out: Path, shard: tuple[int, int]) -> Path:
    """Return where a part of a sharded run lives; the whole run's own folder for 1 shard."""
    return out if shard[1] == 1 else out / "_parts" / f"{shard[0]:03d}-of-{shard[1]:03d}"


def list_items(stage: Stage, shard: tuple[int, int] = (0, 1)) -> list[Item]:
    """Return the items of a stage (of one shard of it). DataError if two share an id."""
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


def is_current(
    manifest: dict, work: StepRun, items: list[Item], records: dict[str, Record]
) -> bool:
    """Return whether a complete result is the one that is asked for, and all of it is there."""
    settings = work.settings
    return (
        not settings.force
        and not work.lost
        and manifest.get("fingerprint", "") == work.fingerprint
        and manifest.get("items") == items_digest(items)
        and set(records) == {i.id for i in items}
        and (not settings.retry_failed or all(r.usable for r in records.values()))
    )


def choose(work: StepRun, items: list[Item]) -> set[str]:
    """Return ids that need no work."""
    keys = {item.id: item.key for item in items}
    valid = [
        r
        for r in work.journal.records.values()
        if r.step == work.fingerprint and keys.get(r.id) == r.key
    ]
    if work.settings.retry_failed:
        valid = [r for r in valid if r.usable]
    if work.stage.store == "files":
        finished = [] if work.settings.force else [*valid, *_come_back(work, keys)]
        return {r.id for r in finished if not r.usable or outputs_exist(work.folder, r, work.lost)}
    return _choose_prefix(work, items, {r.id for r in valid})


def _come_back(work: StepRun, keys: dict[str, str]) -> list[Record]:
    """Records of items that failed in between (their disk was not there) and are as before now;
    they count again.
    """
    again = [
        r
        for r in work.journal.superseded.values()
        if r.step == work.fingerprint
        and keys.get(r.id) == r.key != work.journal.records[r.id].key
        and outputs_exist(work.folder, r, work.lost)
    ]
    work.journal.append(again)
    return again


def _choose_prefix(work: StepRun, items: list[Item], valid: set[str]) -> set[str]:
    """A single-writer store holds its items in order: what counts is the longest valid
    beginning of the journal.
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
        # torn: killed while the store got its name, and the inputs changed since: which store is
        # there is unknown
        _restart(work)
        return set()
    if length < len(records):
        journal.rewrite(records[:length])
    return {r.id for r in records[:length]}


def _restart(work: StepRun) -> None:
    manifest_path(work.folder).unlink(missing_ok=True)
    finishing(work).unlink(missing_ok=True)
    work.journal.rewrite([])


def finishing(work: StepRun) -> Path:
    return work.folder / STATE / "finishing"


def outputs_exist(folder: Path, record: Record, lost: frozenset[str] = frozenset()) -> bool:
    """True if every file of the record is there with its recorded size, and none is in `lost`."""
    if lost and not lost.isdisjoint(record.outputs):
        return False
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
    """Return what finished stores can lend: {item id: (its record there, the store's folder)}."""
    found: dict[str, tuple[Record, Path]] = {}
    keys = {item.id: item.key for item in todo}
    for folder in work.sources:
        for record in read_records(folder / STATE / "items.jsonl"):
            answers_today = record.step == work.fingerprint and keys.get(record.id) == record.key
            is_wanted = record.usable or not work.settings.retry_failed
            if answers_today and is_wanted and outputs_exist(folder, record, work.lost):
                found[record.id] = (record, folder)
    return found


def reuse(work: StepRun, item: Item, record: Record, folder: Path) -> Answer:
    """Return the answer of an item that a finished store lends."""
    work.borrowed += 1
    if not record.usable:
        error = ItemError(record.reason, record.message)
        return Answer(item, None, error, record.seconds, record.attempts, is_borrowed=True)
    if work.stage.store == "single":
        outcome = work.stage.reuse(item, record, folder)
    else:
        outcome = Outcome(
            status=record.status,
            value=None,
            outputs=record.outputs,
            facts=record.facts,
            reason=record.reason,
            message=record.message,
        )
        for name in record.outputs:
            link_or_copy(folder / name, work.folder / name)
    return Answer(item, outcome, None, record.seconds, record.attempts, is_borrowed=True)
