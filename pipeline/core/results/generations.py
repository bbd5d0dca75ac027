"""The old result of a step stays whole until the new one is complete; a costly one is set aside.

A step whose complete result has to change builds the new one in `_new/`, a folder with artefacts
and a `_state/` of its own. `replace` then moves it into place file by file, each by one rename,
the manifest last. A note in `_state/replacing` makes a killed move go on at the next run. What a
stage with `keeps` made is first linked into `_previous/<id>/`, where nothing removes it but the
command `forget`. An interrupted one is moved there with all its progress, and goes on from there
when the same options and inputs come back.
"""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.files import atomic_write, link_or_copy, sync_folder
from pipeline.core.results.intact import recorded
from pipeline.core.state import (
    STATE,
    digest,
    manifest_path,
    read_json,
    read_manifest,
    read_records,
    replacing,
)

NEW, PREVIOUS, PARTS = "_new", "_previous", "_parts"
_BEGUN = "begun.json"
# of `_state`: they belong to the folder, "partial" with downloads that another run goes on with
_STAYS = frozenset({"lock", "log.txt", "replacing", "partial"})


@dataclass(frozen=True)
class Kept:
    """A result that was set aside. steps: the options of the step and of those before it."""

    path: Path
    is_complete: bool
    lineage: dict[str, dict]
    bytes: int


def identity(fingerprint: str, items: str) -> str:
    """Short name of one way to make a result: options and inputs (`items`: `items_digest`)."""
    return digest([fingerprint, items])[:16]


def begun(place: Path) -> dict:
    """Return what the work in a folder is: {"identity", "fingerprint", "items", "lineage"}; {} if
    none was begun.
    """
    return read_json(place / STATE / _BEGUN) or {}


def begin(place: Path, facts: dict) -> None:
    """Note what the work in `place` is."""
    if begun(place) != facts:
        atomic_write(place / STATE / _BEGUN, json.dumps(facts, default=str).encode() + b"\n")


def prepare(folder: Path, name: str, keeps: bool, restores: bool) -> Path:
    """`folder`/_new, ready to build the result `name` (its `identity`) in.

    What is there of another result is set aside (keeps) or, if it can no longer be continued,
    removed. restores: a result of this name that was set aside is taken back.
    """
    place, before = folder / NEW, begun(folder / NEW).get("identity")
    if place.exists() and before != name:
        if keeps and holds_work(place):
            set_aside(folder, place, before)
        elif keeps or read_manifest(place) is not None or replacing(place).exists():
            shutil.rmtree(place)
    kept = folder / PREVIOUS / name
    if restores and kept.is_dir() and not place.exists():
        kept.rename(place)
        _remove_if_empty(kept.parent)
    (place / STATE).mkdir(parents=True, exist_ok=True)
    remembered = folder / STATE / "digests.jsonl"
    if remembered.exists() and not (place / STATE / remembered.name).exists():
        shutil.copyfile(remembered, place / STATE / remembered.name)
    return place


def holds_work(place: Path) -> bool:
    """Return whether a folder holds any artefact, finished or not."""
    return any(_entries(place))


def set_aside(folder: Path, place: Path, name: str | None) -> Path:
    """Move the work in `place` (`folder` itself, or its `_new`) to `folder`/_previous/<name>."""
    target = _free_place(folder, name)
    if place != folder:
        target.parent.mkdir(parents=True, exist_ok=True)
        place.rename(target)
        return target
    moving = folder / PREVIOUS / f".moving-{name or 'unknown'}"  # a kill here: goes on next time
    (moving / STATE).mkdir(parents=True, exist_ok=True)
    last = folder / STATE / _BEGUN
    for path in [*_entries(folder), *(p for p in _state_entries(folder) if p != last), last]:
        if os.path.lexists(path):
            path.rename(moving / path.relative_to(folder))
    moving.rename(target)
    sync_folder(target.parent)
    return target


def replace(folder: Path, keeps: bool) -> None:
    """Put the complete result in `folder`/_new into the place of the present one."""
    place = folder / NEW
    old = recorded(read_manifest(folder), read_records(folder / STATE / "items.jsonl"))
    if keeps and old:
        _link_aside(folder, old)
    new = recorded(read_manifest(place), read_records(place / STATE / "items.jsonl"))
    note = {
        "old": sorted(old),
        "new": sorted(new),
        "failed": (place / STATE / "failed").is_dir(),
    }
    atomic_write(replacing(folder), json.dumps(note).encode() + b"\n")
    complete(folder)


def complete(folder: Path) -> None:
    """Finish a `replace` that was killed; nothing if there is none."""
    note = read_json(replacing(folder))
    if note is None:
        replacing(folder).unlink(missing_ok=True)
        return
    place = folder / NEW
    for name in note["new"]:
        if os.path.lexists(place / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).replace(folder / name)
    for name in sorted(set(note["old"]) - set(note["new"])):
        (folder / name).unlink(missing_ok=True)
        _remove_empty_parents(folder, folder / name)
    for parent in {(folder / name).parent for name in note["new"]}:
        sync_folder(parent)
    if not note["failed"]:
        for path in (folder / STATE / "failed").glob("*"):
            path.unlink()
    for path in _state_entries(place):
        target = folder / STATE / path.name
        if path.name != manifest_path(folder).name:
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
    if manifest_path(place).exists():
        manifest_path(place).replace(manifest_path(folder))
    sync_folder(folder / STATE)
    replacing(folder).unlink()
    shutil.rmtree(place, ignore_errors=True)


def drop_new(folder: Path, keeps: bool) -> None:
    """The present result is the one that is wanted: set the unfinished one aside (keeps), or remove
    it.
    """
    place = folder / NEW
    if place.exists():
        if keeps and holds_work(place):
            set_aside(folder, place, begun(place).get("identity"))
        else:
            shutil.rmtree(place)


def kept_results(folder: Path) -> list[Kept]:
    """Return what a step set aside, oldest first."""
    places = (p for p in (folder / PREVIOUS).glob("[!.]*") if p.is_dir())
    found = sorted(places, key=lambda p: (p.stat().st_mtime, p.name))
    return [
        Kept(
            place,
            read_manifest(place) is not None,
            begun(place).get("lineage") or (read_manifest(place) or {}).get("lineage") or {},
            sum(p.stat().st_size for p in _files(place)),
        )
        for place in found
    ]


def _link_aside(folder: Path, names: Iterable[str]) -> None:
    """Give the present result second names in `_previous/<id>/`; all of them, or none."""
    manifest, told = manifest_path(folder), read_manifest(folder) or {}
    name = begun(folder).get("identity") or identity(
        told.get("fingerprint", ""), told.get("items", "")
    )
    ready = folder / PREVIOUS / (name or "unknown") / STATE / manifest.name
    if ready.exists() and manifest.exists() and ready.samefile(manifest):
        return  # killed after this and before the replacing
    target = _free_place(folder, name)
    building = folder / PREVIOUS / f".tmp-{target.name}"
    shutil.rmtree(building, ignore_errors=True)
    for file in sorted(set(names)):
        if (folder / file).is_file():
            link_or_copy(folder / file, building / file)
    (building / STATE).mkdir(parents=True, exist_ok=True)
    for path in _state_entries(folder):
        if path.is_dir():
            shutil.copytree(path, building / STATE / path.name)
        elif path == manifest_path(folder):
            link_or_copy(path, building / STATE / path.name)
        else:  # appended to in place
            shutil.copyfile(path, building / STATE / path.name)
    building.rename(target)
    sync_folder(target.parent)


def _free_place(folder: Path, name: str | None) -> Path:
    target, count = folder / PREVIOUS / (name or "unknown"), 1
    while target.exists():
        count += 1
        target = folder / PREVIOUS / f"{name or 'unknown'}-{count}"
    return target


def _entries(folder: Path) -> list[Path]:
    """Return what lies in a step's folder beside the folders of the engine."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name not in (STATE, NEW, PREVIOUS, PARTS))


def _state_entries(folder: Path) -> list[Path]:
    state = folder / STATE
    return sorted(p for p in state.iterdir() if p.name not in _STAYS) if state.is_dir() else []


def _files(folder: Path) -> list[Path]:
    found = []
    for entry in _entries(folder):
        inner = entry.rglob("*") if entry.is_dir() and not entry.is_symlink() else [entry]
        found += [p for p in inner if p.is_symlink() or not p.is_dir()]
    return found


def _remove_empty_parents(folder: Path, path: Path) -> None:
    for parent in path.parents:
        if parent == folder or any(parent.iterdir() if parent.is_dir() else ["gone"]):
            return
        parent.rmdir()


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
