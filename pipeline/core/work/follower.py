"""What the processes beside the first do, when torchrun started several for one step."""

import contextlib
from pathlib import Path

from pipeline import log
from pipeline.core import stop
from pipeline.core.manifest import stage_fingerprint
from pipeline.core.results import generations, intact
from pipeline.core.stage import Item, Stage
from pipeline.core.state import STATE, Journal, Record, read_manifest, read_records
from pipeline.core.todo import StepRun, is_current, items_digest, list_items, outputs_exist
from pipeline.core.work.settings import Settings
from pipeline.errors import ItemError


def follow(stage: Stage, settings: Settings) -> dict:
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
    """Return what rank 0 finds to do in the journal; sets `stage.out` to where rank 0 builds."""
    fingerprint, items, folder = stage_fingerprint(stage), list_items(stage), stage.out
    records = {} if settings.force else _known(folder, fingerprint, settings)
    old = read_manifest(folder)
    work = StepRun(
        stage=stage, name="", fingerprint=fingerprint, settings=settings, folder=folder, sources=[]
    )
    if old is not None:
        every = Journal(folder / STATE / "items.jsonl").load().records
        work.lost = frozenset(intact.faults(folder, intact.recorded(old, every.values())))
        if is_current(old, work, items, every):
            return []
    if old is not None or _is_restored(stage, folder, fingerprint, items, settings):
        stage.out = folder / generations.NEW
        records |= _known(stage.out, fingerprint, settings)
    found = []
    for item in items:
        record = records.get(item.id)
        if (
            not record
            or record.key != item.key
            or (
                record.usable
                and not outputs_exist(folder, record, work.lost)
                and not outputs_exist(stage.out, record)
            )
        ):
            found.append(item)
    return found


def _is_restored(
    stage: Stage, folder: Path, fingerprint: str, items: list[Item], settings: Settings
) -> bool:
    """Return whether rank 0 goes on with a result that was set aside, or has just taken it back."""
    identity = generations.identity(fingerprint, items_digest(items))
    kept = (folder / generations.PREVIOUS / identity).is_dir()
    taken = generations.begun(folder / generations.NEW).get("identity") == identity
    return stage.keeps and not settings.force and (kept or taken)


def _known(folder: Path, fingerprint: str, settings: Settings) -> dict[str, Record]:
    return {
        r.id: r
        for r in read_records(folder / STATE / "items.jsonl")
        if r.step == fingerprint and (r.usable or not settings.retry_failed)
    }
