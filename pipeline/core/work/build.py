"""Make what is still to be made of a step, item by item: answer, commit, journal line, manifest."""

import glob
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline import __version__, log
from pipeline.core import stop
from pipeline.core.files import (
    atomic_write,
    disk_name,
    json_lines,
    remove_temporaries,
    written,
)
from pipeline.core.manifest import build_manifest
from pipeline.core.results import intact, removals
from pipeline.core.stage import Item
from pipeline.core.state import (
    STATE,
    Record,
    failure_path,
    forget_failure,
    manifest_path,
    match_failures,
    read_manifest,
    read_records,
    write_failure,
)
from pipeline.core.todo import (
    StepRun,
    choose,
    finishing,
    is_current,
    items_digest,
    reusable,
    reuse,
)
from pipeline.core.work import workers
from pipeline.core.work.answer import Answer
from pipeline.errors import Interrupted, ItemError, TooManyFailures, TvrError

_AGAIN = "Run the same command again to go on."
_FLUSH_SECONDS = 5.0  # a single-writer store makes its items durable at least this often
_BORROWED = 32  # times flush_items, of items that a finished store lends
_NAMED = 3  # damaged and failed items that a step's line names


def build(work: StepRun, items: list[Item], lineage: dict, start: float) -> tuple[dict, int]:
    """Make everything that is still to be made in `work.folder`; the manifest, and how many items
    were made.
    """
    work.journal.open()
    try:
        done = choose(work, items)
        todo = [item for item in items if item.id not in done]
        manifest = read_manifest(work.folder)
        if not todo and manifest is not None and _is_complete(manifest, work, items):
            return manifest, 0
        manifest_path(work.folder).unlink(missing_ok=True)
        remove_temporaries(work.folder)
        _note_handed_out(work, todo)
        _work_through(work, items, todo)
        new = len(todo) - work.borrowed
        return _finish(work, items, lineage, time.perf_counter() - start), new
    finally:
        work.journal.close()


def _is_complete(manifest: dict, work: StepRun, items: list[Item]) -> bool:
    unforced = replace(work, settings=replace(work.settings, force=False), lost=frozenset())
    return is_current(manifest, unforced, items, work.journal.records)


def _work_through(work: StepRun, items: list[Item], todo: list[Item]) -> None:
    stage, settings = work.stage, work.settings
    try:
        recovered = stage.open(
            list(work.journal.records.values()) if stage.store == "single" else []
        )
        known = {item.id: item for item in items}
        recovered = [
            r
            for r in recovered
            if r.id in known and r.key == known[r.id].key and r.step == work.fingerprint
        ]
        work.journal.append(recovered)
        saved = {r.id for r in recovered}
        todo[:] = [item for item in todo if item.id not in saved]
        answered = 0
        with log.Progress(work.name, total=len(items), done=len(items) - len(todo)) as progress:
            for answer in _answers(work, todo):
                answered += 1
                _take(work, answer)
                progress.advance(failed=isinstance(answer.error, ItemError))
                if settings.fail_fast and isinstance(answer.error, ItemError):
                    _flush_early(work)
                    raise TooManyFailures(
                        str(answer.error),
                        where=answer.item.id,
                        fix="Run without --fail-fast to go on past such items.",
                    )
            if answered < len(todo):  # a stop was asked for
                _flush_early(work)
                raise Interrupted(
                    "interrupted; everything finished is kept", where=work.name, fix=_AGAIN
                )
            _flush(work)
    finally:
        stage.close()


def _answers(work: StepRun, todo: list[Item]) -> Iterator[Answer]:
    """Reused items first come from finished stores; the rest from `process`. Item order is kept for
    single stores.
    """
    lent = reusable(work, todo)
    settings = work.settings

    def process(items: list[Item]) -> Iterator[Answer]:
        if items:
            yield from workers.answers(work.stage, items, settings)

    if not lent:
        yield from process(todo)
        return
    fresh = process([item for item in todo if item.id not in lent])
    if work.stage.store == "files":
        yield from (reuse(work, item, *lent[item.id]) for item in todo if item.id in lent)
        yield from fresh
        return
    for item in todo:
        if stop.requested():
            return
        answer = reuse(work, item, *lent[item.id]) if item.id in lent else next(fresh, None)
        if answer is None:
            return
        yield answer


def _take(work: StepRun, answer: Answer) -> None:
    """Commit one answer and queue its journal line."""
    if isinstance(answer.error, TvrError):
        _flush_early(work)
        raise answer.error
    if isinstance(answer.error, OSError):
        answer.error = ItemError("io_error", str(answer.error))
    record = _record(work, answer)
    if record.usable:
        try:
            work.stage.commit(answer.item, answer.outcome, record)
            answer.outcome.value = None
        except ItemError as error:
            answer.error = error
            record = _record(work, answer)
    work.pending.append((answer.item, record))
    if not record.usable and answer.detail:
        write_failure(work.folder, record, answer.detail)
    work.pending_bytes += sum(
        o.get("bytes", 0) for o in record.outputs.values()
    ) + record.facts.get("bytes", 0)
    work.pending_new += not answer.is_borrowed
    if _is_flush_due(work):
        _flush(work)


def _is_flush_due(work: StepRun) -> bool:
    """Return whether what waits should be made durable: a kill would cost it. What was borrowed
    costs little to borrow again, and is made durable in larger parts.
    """
    stage = work.stage
    if not stage.flush_anywhere:
        return len(work.pending) >= stage.flush_items
    return (
        work.pending_new >= stage.flush_items
        or len(work.pending) >= _BORROWED * stage.flush_items
        or work.pending_bytes >= stage.flush_bytes
        or time.monotonic() - work.flushed_at > _FLUSH_SECONDS
    )


def _flush_early(work: StepRun) -> None:
    if work.stage.flush_anywhere:
        _flush(work)


def _record(work: StepRun, answer: Answer) -> Record:
    item, error = answer.item, answer.error
    head = {
        "id": item.id,
        "key": item.key,
        "step": work.fingerprint,
        "source": item.source,
        "attempts": answer.attempts,
    }
    if isinstance(error, ItemError):
        return Record(
            **head,
            status="failed",
            reason=error.reason,
            message=error.message,
            seconds=round(answer.seconds, 4),
        )
    outcome = answer.outcome
    return Record(
        **head,
        status=outcome.status,
        reason=outcome.reason,
        message=outcome.message,
        seconds=round(answer.seconds, 4),
        outputs=outcome.outputs,
        facts=outcome.facts,
    )


def _flush(work: StepRun) -> None:
    if not work.pending:
        return
    corrections = work.stage.flush()
    records = []
    for item, record in work.pending:
        change = corrections.get(item.id)
        if change is not None:
            error = change if isinstance(change, ItemError) else None
            outcome = None if error else change
            record = _record(work, Answer(item, outcome, error, record.seconds, record.attempts))
        records.append(record)
    for record in records:  # before its line: what the journal knows is never without its file
        if not record.usable and not failure_path(work.folder, record.id).exists():
            write_failure(work.folder, record)
    work.journal.append(records, sync=work.stage.flush_items > 1)
    for record in records:
        if record.usable:
            forget_failure(work.folder, record.id)
        if record.status == "failed":
            log.item_failed(work.name, record)
        elif record.status == "damaged":
            log.item_damaged(work.name, record)
    work.pending.clear()
    work.pending_bytes, work.pending_new, work.flushed_at = 0, 0, time.monotonic()


def _finish(work: StepRun, items: list[Item], lineage: dict, seconds: float) -> dict:
    """Compact the journal to the items of today, in order; index; drop what is gone; write the
    manifest last.
    """
    stage, journal = work.stage, work.journal
    records = [journal.records[item.id] for item in items]
    removals.expect_results(work.name, work.usable_before, records, work.settings.allow_removals)
    match_failures(work.folder, records)
    _remove_superseded(work, {name for r in records if r.usable for name in r.outputs})
    journal.rewrite(records)
    atomic_write(finishing(work), items_digest(items))
    usable = [r for r in records if r.usable]
    log.noted(work.name, usable)
    summary = stage.finish(usable)
    manifest = build_manifest(
        stage,
        work.name,
        fingerprint=work.fingerprint,
        records=records,
        summary=summary,
        lineage=lineage,
    )
    manifest |= {
        "items": items_digest(items),
        "files": {p.relative_to(work.folder).as_posix(): written(p) for p in stage.files()},
        "named": {
            status: [r.id for r in records if r.status == status][:_NAMED]
            for status in ("damaged", "failed")
        },
        "seconds": round(seconds, 2),
        "version": __version__,
        "python": platform.python_version(),
        "shard": list(work.settings.shard),
    }
    intact.remember(work.folder, intact.recorded(manifest, records))
    atomic_write(manifest_path(work.folder), log.pretty_json(manifest))
    finishing(work).unlink(missing_ok=True)
    return manifest


def _remove_superseded(work: StepRun, kept: set[str]) -> None:
    """Remove files of journal lines that no longer count: items that are gone, now fail, or have
    other names. Also those of items that a killed run had made but not yet written down.
    """
    if work.stage.store != "files":
        return
    doomed = {name for r in read_records(work.journal.path) for name in r.outputs} - kept
    for item_id in _handed_out(work) - work.journal.records.keys():
        place = work.folder / disk_name(item_id)
        found = [
            p for p in place.parent.glob(f"{glob.escape(place.name)}.*") if p.stem == place.name
        ]
        doomed |= {path.relative_to(work.folder).as_posix() for path in found} - kept
    for name in doomed:
        (work.folder / name).unlink(missing_ok=True)
    _handed_path(work).unlink(missing_ok=True)


def _handed_path(work: StepRun) -> Path:
    return work.folder / STATE / "handed_out.jsonl"


def _note_handed_out(work: StepRun, todo: list[Item]) -> None:
    """Write down which items are worked on, so that what a kill leaves of them can be found."""
    ids = sorted(_handed_out(work) | {item.id for item in todo})
    if work.stage.store == "files" and ids:
        atomic_write(_handed_path(work), b"".join(json.dumps(i).encode() + b"\n" for i in ids))


def _handed_out(work: StepRun) -> set[str]:
    path = _handed_path(work)
    return (
        {i for i in json_lines(path.read_bytes()) if isinstance(i, str)} if path.exists() else set()
    )
