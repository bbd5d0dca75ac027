"""Run one stage: choose the items still to do, fan out, commit, journal, quarantine, finish.

Order of writing: artefact (temporary name, fsync, rename), then journal line, then at the very end
the manifest. A kill at any instant therefore costs at most the items in flight. A complete result
that has to change stays until the new one, built in `_new/`, takes its place
(`pipeline/core/results/generations.py`).
"""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline import log
from pipeline.core import ranks, stop
from pipeline.core.files import expect_no_links
from pipeline.core.lock import Lock
from pipeline.core.manifest import effective_options, stage_fingerprint
from pipeline.core.results import differences, generations, intact, removals
from pipeline.core.stage import Stage
from pipeline.core.state import STATE, Journal, read_manifest, read_records
from pipeline.core.todo import (
    StepRun,
    in_shard,
    is_current,
    items_digest,
    list_items,
    shard_folder,
)
from pipeline.core.work.build import build
from pipeline.core.work.follower import follow
from pipeline.core.work.settings import Settings
from pipeline.errors import TooManyFailures, refusal


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
    DataError (also when most of the former input is gone, see `removals`).
    """
    if ranks.rank() > 0:
        return follow(stage, settings)
    if jobs is not None:
        settings = replace(settings, jobs=jobs)
    name = name or stage.__class__.__module__.rpartition(".")[2]
    folder = shard_folder(stage.out, settings.shard)
    try:
        expect_no_links(folder)
        with stop.handling(), Lock(folder / STATE), log.to_file(folder / STATE / "log.txt"):
            for chosen in _passes(stage, settings, folder):
                fresh = _at(stage, folder)  # a stage is opened once
                manifest = _bring_up_to_date(fresh, name, chosen, list(reuse_from), lineage or {})
    except OSError as error:
        raise refusal(error, folder) or error from error
    _judge(name, manifest, settings, folder)
    _judge_parts(name, stage.left_out(manifest), settings)
    return manifest


def _at(stage: Stage, folder: Path) -> Stage:
    fresh = type(stage)(stage.options, stage.inputs, folder)
    if "runs" in vars(stage):
        fresh.runs = stage.runs
    return fresh


def _passes(stage: Stage, settings: Settings, folder: Path) -> list[Settings]:
    """A half-built single store is completed first; then its failed items are tried again."""
    half_built = (folder / generations.NEW).exists() or read_manifest(folder) is None
    if settings.retry_failed and stage.store == "single" and half_built:
        return [replace(settings, retry_failed=False), settings]
    return [settings]


def _bring_up_to_date(
    stage: Stage, name: str, settings: Settings, sources: list[Path], lineage: dict
) -> dict:
    start, folder = time.perf_counter(), stage.out
    generations.complete(folder)
    everything = list_items(stage)
    items = [i for i in everything if settings.shard[1] == 1 or in_shard(i.id, settings.shard)]
    before = Journal(folder / STATE / "items.jsonl").load().records
    gone = removals.expect_inputs(stage, everything, items, before, settings.allow_removals)
    fingerprint, old = stage_fingerprint(stage), read_manifest(folder)
    work = StepRun(
        stage=stage,
        name=name,
        fingerprint=fingerprint,
        settings=settings,
        folder=folder,
        sources=sources,
    )
    work.usable_before = frozenset(i for i, r in before.items() if r.usable)
    if old is not None:
        work.lost = frozenset(intact.faults(folder, intact.recorded(old, before.values())))
        if is_current(old, work, items, before):
            generations.drop_new(folder, stage.keeps)
            log.step_line(name, old, {}, time.perf_counter() - start)
            return old
    lineage = lineage | {name: effective_options(stage)}
    facts = {
        "identity": generations.identity(fingerprint, items_digest(items)),
        "fingerprint": fingerprint,
        "items": items_digest(items),
        "lineage": lineage,
    }
    _say_why(work, old, facts, len(items))
    place = _place(work, facts["identity"], old)
    if place != folder:
        stage.out = place
        lends = not settings.force and not (work.lost and stage.store == "single")
        work = replace(work, folder=place, sources=[*sources, folder] if lends and old else sources)
    generations.begin(place, facts)
    manifest, new = build(work, items, lineage, start)
    if place != folder:
        generations.replace(folder, stage.keeps)
    tally = {"new": new, "kept": len(items) - new, "removed": gone}
    log.step_line(name, manifest, tally, time.perf_counter() - start)
    return manifest


def _place(work: StepRun, identity: str, old: dict | None) -> Path:
    """Return where the result is built: in its own folder if there is none yet (or its files are
    replaced one by one), else in `_new`.
    """
    stage, folder = work.stage, work.folder
    restores = stage.keeps and not work.settings.force
    if old is not None:
        one_by_one = stage.store == "files" and stage.runs == "workers"
        if one_by_one and old.get("fingerprint", "") == work.fingerprint:
            generations.drop_new(folder, stage.keeps)
            return folder
        return generations.prepare(folder, identity, stage.keeps, restores)
    if stage.keeps:
        before = generations.begun(folder).get("identity")
        if before and before != identity and generations.holds_work(folder):
            kept = generations.set_aside(folder, folder, before)
            log.info(f"{work.name:<20} the unfinished result is kept in {kept}")
        if restores and (
            (folder / generations.PREVIOUS / identity).is_dir()
            or generations.begun(folder / generations.NEW).get("identity") == identity
        ):
            return generations.prepare(folder, identity, stage.keeps, restores)
    elif (folder / generations.NEW).exists():
        generations.drop_new(folder, stage.keeps)
    return folder


def _say_why(work: StepRun, old: dict | None, facts: dict, n_items: int) -> None:
    """Before it starts: what differs from the result that is there, and what becomes of that."""
    stage = work.stage
    if work.lost and old is not None:
        found = intact.faults(work.folder, intact.recorded(old, read_records(work.journal.path)))
        log.warning(f"{work.name:<20} changed since it was written: {intact.described(found)}")
    if old is not None:
        before, inputs = old.get("lineage") or {}, old.get("inputs") or {}
    else:
        before, inputs = generations.begun(work.folder).get("lineage") or {}, {}
    if not before or not (stage.keeps or old is not None):
        return
    changed = differences.options(before, facts["lineage"], work.name)
    changed += differences.inputs(inputs, stage.inputs) if old is not None and not changed else []
    if not changed and not stage.keeps:
        return
    if changed or work.settings.force:
        fate = "the present result stays until the new one is complete"
        if stage.keeps:
            fate += f", and is then kept in {work.folder / generations.PREVIOUS}"
        why = "; ".join(changed) if changed else "--force"
        log.info(f"{work.name:<20} {why}: {fate if old is not None else 'begun anew'}")


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
