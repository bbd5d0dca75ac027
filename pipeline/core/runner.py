"""Run one stage: choose the items still to do, fan out, commit, journal, quarantine, finish.

Order of writing: artefact (temporary name, fsync, rename), then journal line, then at the very end
the manifest. A kill at any instant therefore costs at most the items in flight.
"""

import contextlib
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from pipeline import __version__, log
from pipeline.core import ranks, stop, workers
from pipeline.core.files import atomic_write, remove_temporaries
from pipeline.core.lock import Lock
from pipeline.core.manifest import build as build_manifest
from pipeline.core.manifest import stage_fingerprint
from pipeline.core.stage import Item, Stage
from pipeline.core.state import (
    STATE,
    Record,
    failure_path,
    forget_failure,
    manifest_path,
    read_manifest,
    read_records,
    write_failure,
)
from pipeline.core.todo import (
    Settings,
    StepRun,
    choose,
    finishing,
    items_digest,
    list_items,
    outputs_exist,
    previous,
    reusable,
    reuse,
    shard_folder,
)
from pipeline.errors import Interrupted, ItemError, TooManyFailures, TvrError, refusal

_AGAIN = "Run the same command again to go on."
_FLUSH_SECONDS = 5.0  # a single-writer store makes its items durable at least this often


def run(
    stage: Stage,
    name: str = "",
    settings: Settings = Settings(),
    reuse_from: Iterable[Path] = (),
    lineage: dict | None = None,
    jobs: int | None = None,
) -> dict:
    """Bring `stage.out` up to date and return its manifest.

    Raises TooManyFailures (after the last item), Interrupted, StateError (locked), SystemRefused,
    DataError.
    """
    if ranks.rank() > 0:
        return _follow(stage, settings)
    if jobs is not None:
        settings = replace(settings, jobs=jobs)
    name = name or stage.__class__.__module__.rpartition(".")[2]
    folder = shard_folder(stage.out, settings.shard)
    if folder != stage.out:
        stage = type(stage)(stage.options, stage.inputs, folder)
    try:
        with stop.handling(), Lock(folder / STATE), log.to_file(folder / STATE / "log.txt"):
            if settings.retry_failed and stage.store == "single" and read_manifest(folder) is None:
                # a half-built store is completed first; then its failed items are tried again into
                # a new generation
                first = replace(settings, retry_failed=False)
                _run_locked(
                    StepRun(stage, name, stage_fingerprint(stage), first, folder, list(reuse_from)),
                    lineage or {},
                )
            work = StepRun(
                stage, name, stage_fingerprint(stage), settings, folder, list(reuse_from)
            )
            manifest = _run_locked(work, lineage or {})
    except OSError as error:
        raise refusal(error, folder) or error from error
    _judge(name, manifest, settings, folder)
    _judge_parts(name, stage.left_out(manifest), settings)
    return manifest


def _follow(stage: Stage, settings: Settings) -> dict:
    """Take part in the work of rank 0: the same items in the same order, without lock, journal or
    manifest.

    What rank 0 has to do is read from the journal as it does; it cannot get ahead, because its
    first item waits for us.
    """
    if stage.ranks != "all":
        return {}
    with stop.handling(), log.errors_only():  # rank 0 says everything once
        for item in _shared_items(stage, settings):
            with contextlib.suppress(ItemError):  # rank 0 meets the same and sets the item aside
                stage.process(item)
    return {}


def _shared_items(stage: Stage, settings: Settings) -> list[Item]:
    """What rank 0 finds to do in the journal."""
    fingerprint, known = stage_fingerprint(stage), {}
    if not settings.force:
        records = read_records(stage.out / STATE / "items.jsonl")
        known = {
            r.id: r
            for r in records
            if r.step == fingerprint and (r.usable or not settings.retry_failed)
        }
    found = []
    for item in list_items(stage):
        record = known.get(item.id)
        if (
            not record
            or record.key != item.key
            or (record.usable and not outputs_exist(stage.out, record))
        ):
            found.append(item)
    return found


def _run_locked(work: StepRun, lineage: dict) -> dict:
    start = time.perf_counter()
    stage, settings = work.stage, work.settings
    items = list_items(stage, settings.shard)
    work.journal.open()
    try:
        done = choose(work, items)
        todo = [item for item in items if item.id not in done]
        manifest = read_manifest(work.folder)
        if not todo and _is_current(manifest, work, items):
            log.step_line(work.name, manifest, new=0, seconds=time.perf_counter() - start)
            return manifest
        manifest_path(work.folder).unlink(missing_ok=True)
        remove_temporaries(work.folder)
        _work_through(work, items, todo)
        manifest = _finish(work, items, lineage, time.perf_counter() - start)
        log.step_line(work.name, manifest, new=len(todo), seconds=time.perf_counter() - start)
        return manifest
    finally:
        work.journal.close()


def _is_current(manifest: dict | None, work: StepRun, items: list[Item]) -> bool:
    return bool(
        manifest
        and manifest["fingerprint"] == work.fingerprint
        and manifest["items"] == items_digest(items)
        and set(work.journal.records) == {i.id for i in items}
    )


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
        with log.Progress(work.name, total=len(items), done=len(items) - len(todo)) as progress:
            for answer in _answers(work, todo):
                _take(work, answer)
                progress.advance(failed=isinstance(answer.error, ItemError))
                if settings.fail_fast and isinstance(answer.error, ItemError):
                    _flush_early(work)
                    raise TooManyFailures(
                        str(answer.error),
                        where=answer.item.id,
                        fix="Run without --fail-fast to go on past such items.",
                    )
            if stop.requested() and len(work.journal.records) + len(work.pending) < len(items):
                _flush_early(work)
                raise Interrupted(
                    "interrupted; everything finished is kept", where=work.name, fix=_AGAIN
                )
            _flush(work)
    finally:
        stage.close()


def _answers(work: StepRun, todo: list[Item]) -> Iterator[workers.Answer]:
    """Reused items first come from finished stores; the rest from `process`. Item order is kept for
    single stores.
    """
    lent = reusable(work, todo)
    settings = work.settings

    def process(items: list[Item]) -> Iterator[workers.Answer]:
        if items:
            count = min(settings.workers, len(items))
            yield from workers.answers(
                work.stage, items, count, settings.retries, settings.memory_bytes
            )

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


def _take(work: StepRun, answer: workers.Answer) -> None:
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
    stage = work.stage
    early = (
        work.pending_bytes >= stage.flush_bytes
        or time.monotonic() - work.flushed_at > _FLUSH_SECONDS
    )
    if len(work.pending) >= stage.flush_items or (early and stage.flush_anywhere):
        _flush(work)


def _flush_early(work: StepRun) -> None:
    if work.stage.flush_anywhere:
        _flush(work)


def _record(work: StepRun, answer: workers.Answer) -> Record:
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
            record = _record(
                work, workers.Answer(item, outcome, error, record.seconds, record.attempts)
            )
        records.append(record)
    work.journal.append(records, sync=work.stage.flush_items > 1)
    for record in records:
        if record.usable:
            forget_failure(work.folder, record.id)
        else:
            log.item_failed(work.name, record)
            if not (failure_path(work.folder, record.id)).exists():
                write_failure(work.folder, record)
    work.pending.clear()
    work.pending_bytes, work.flushed_at = 0, time.monotonic()


def _finish(work: StepRun, items: list[Item], lineage: dict, seconds: float) -> dict:
    """Compact the journal to the items of today, in order; index; drop what is gone; write the
    manifest last.
    """
    stage, journal = work.stage, work.journal
    current = {item.id for item in items}
    for gone in set(journal.records) - current:
        forget_failure(work.folder, gone)
    records = [journal.records[item.id] for item in items]
    _remove_superseded(work, {name for r in records if r.usable for name in r.outputs})
    journal.rewrite(records)
    atomic_write(finishing(work), items_digest(items))
    usable = [r for r in records if r.usable]
    summary = stage.finish(usable)
    manifest = build_manifest(stage, work.name, work.fingerprint, records, summary, lineage)
    manifest |= {
        "items": items_digest(items),
        "seconds": round(seconds, 2),
        "version": __version__,
        "python": platform.python_version(),
        "shard": list(work.settings.shard),
    }
    atomic_write(manifest_path(work.folder), log.pretty_json(manifest))
    previous(work).unlink(missing_ok=True)
    finishing(work).unlink(missing_ok=True)
    return manifest


def _remove_superseded(work: StepRun, kept: set[str]) -> None:
    """Remove files of journal lines that no longer count: items that are gone, now fail, or have
    other names.
    """
    if work.stage.store == "files":
        for name in {name for r in read_records(work.journal.path) for name in r.outputs} - kept:
            (work.folder / name).unlink(missing_ok=True)


def _judge(name: str, manifest: dict, settings: Settings, folder: Path) -> None:
    counts = manifest["counts"]
    total = sum(counts.values())
    if total and counts["failed"] / total > settings.max_failures:
        raise TooManyFailures(
            f"{counts['failed']:,} of {total:,} items failed, more than --max-failures"
            f" {settings.max_failures:g}",
            where=name,
            fix=(
                f"See {folder / STATE / 'failed'}; mend them and add --retry-failed, or raise"
                " --max-failures."
            ),
        )


def _judge_parts(name: str, left_out: tuple[int, int], settings: Settings) -> None:
    """TooManyFailures if a finished item had to do without too many of its parts."""
    missing, wanted = left_out
    if wanted and missing / wanted > settings.max_failures:
        raise TooManyFailures(
            f"{missing:,} of {wanted:,} videos could not be read and were left out, more than"
            f" --max-failures {settings.max_failures:g}: its figures are those of another, smaller"
            " gallery",
            where=name,
            fix=(
                "Make them readable and run it again (the warning above names some), or raise"
                " --max-failures."
            ),
        )
