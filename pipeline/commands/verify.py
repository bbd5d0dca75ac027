"""Compare every finished result with its recorded digests.

    python cli.py verify demo
    python cli.py verify data/work/demo/frames

Exit code 4 if anything is missing or damaged: it is named, and the next run makes it again.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from pipeline import log
from pipeline.commands._folders import step_folders
from pipeline.commands._shared import config_option, jobs_option, set_option, work_option
from pipeline.core.results import generations, intact
from pipeline.core.state import Record, read_manifest, usable_records
from pipeline.errors import DataError, ItemError
from pipeline.visible import one_line

_SHOWN = 20  # damaged files of a step that are listed


@click.command(help=__doc__)
@click.argument("target", metavar="PIPELINE|FOLDER")
@click.argument("step", required=False)
@jobs_option("files read at once")
@set_option
@work_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="print as JSON")
def command(
    target: str,
    step: str | None,
    jobs: int,
    overrides: tuple,
    work: Path,
    path: Path | None,
    as_json: bool,
) -> None:
    folders = step_folders(target, path, work, list(overrides))
    if step is not None and step not in folders:
        raise DataError(
            f"there is no result of a step {step!r}",
            where=target,
            fix=f"There are: {', '.join(folders)}.",
        )
    results = dict(_results({n: f for n, f in folders.items() if step in (None, n)}))
    report = {name: _verify(folder, jobs) for name, folder in results.items()}
    if as_json:
        click.echo(json.dumps(report, indent=1, ensure_ascii=True))
    else:
        _print(report)
    bad = [name for name, found in report.items() if found["damaged"]]
    if bad:
        raise DataError(
            f"damaged: {', '.join(bad)}",
            where=target,
            fix="Run the command that made it again: it makes anew what is missing or damaged.",
        )


def _results(folders: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """Yield every finished result of the steps: the present one, and those that were set aside."""
    for name, folder in folders.items():
        yield name, folder
        for kept in generations.kept_results(folder):
            if kept.is_complete:
                yield f"{name} ({kept.path.name})", kept.path


def _verify(folder: Path, jobs: int) -> dict:
    manifest = read_manifest(folder)
    if manifest is None:
        return {"state": "not finished", "files": 0, "bytes": 0, "damaged": {}, "items": []}
    records = usable_records(folder)
    files = intact.recorded(manifest, records)
    found = intact.verify(folder, files, jobs or len(os.sched_getaffinity(0)))
    found |= _adopted(folder, manifest)
    size = sum(facts.get("bytes", 0) for facts in files.values())
    of_file = {name: record.id for record in records for name in record.outputs}
    items = sorted({of_file[name] for name in found if name in of_file})
    if set(found) - set(of_file):
        items += _IN_STORE.get(manifest["makes"], lambda folder, records: [])(folder, records)
    return {
        "state": "damaged" if found else "ok",
        "files": len(files),
        "bytes": size,
        "damaged": found,
        "items": items,
    }


def _adopted(folder: Path, manifest: dict) -> dict[str, str]:
    """Return what is wrong with files elsewhere that the step `adopt` points to."""
    from pipeline.core.adopted import POINTER, resolve

    if manifest["stage"] != "adopt" or not (folder / POINTER).is_file():
        return {}
    from pipeline.stores.big_file.stage import folder_digest

    try:
        target = resolve(folder)
        changed = folder_digest(target, None) != manifest["summary"]["digest"]
    except DataError as error:
        return {str(error.where): error.what}
    return {str(target): "is not what was adopted"} if changed else {}


def _of_frames(folder: Path, records: list[Record]) -> list[str]:
    from pipeline.stores.frame_store.reader import FrameStore

    def is_whole(store: FrameStore, video_id: str) -> bool:
        try:
            store.bytes(video_id)
        except (DataError, ItemError, KeyError, ValueError):
            return False
        return True

    try:
        store = FrameStore.open(folder)
    except DataError:
        return []
    return [record.id for record in records if not is_whole(store, record.id)]


def _of_tensors(folder: Path, records: list[Record]) -> list[str]:
    from pipeline.stores.tensor_cache.reader import TensorCache

    found = []
    for kind in sorted({record.id.partition("/")[0] for record in records}):
        try:
            found += [f"{kind}/{i}" for i in TensorCache.open(folder / kind).find_changed()]
        except DataError:
            continue  # the file itself is named
    return found


def _of_features(folder: Path, records: list[Record]) -> list[str]:
    import zlib

    from pipeline.stores.big_file.reader import BigFile

    try:
        store = BigFile.open(folder)
        return [
            r.id
            for r in records
            if "crc32" in r.facts and zlib.crc32(store.read_video(r.id)) != r.facts["crc32"]
        ]
    except (DataError, KeyError, ValueError):
        return []


# which items of a store are damaged: by the checksums of its format, or of our journal
_IN_STORE: dict[str, Callable[[Path, list[Record]], list[str]]] = {
    "frame_store": _of_frames,
    "tensors": _of_tensors,
    "features": _of_features,
}


def _print(report: dict[str, dict]) -> None:
    width = max(map(len, report), default=0)
    for name, found in report.items():
        line = f"{found['files']:>9,} files {found['bytes'] / 1e6:>12,.1f} MB   {found['state']}"
        items = log.names(found["items"][:_SHOWN], len(found["items"]))
        click.echo(f"{name:<{width}} {line}{items}")
        for file, reason in list(found["damaged"].items())[:_SHOWN]:
            click.echo(f"{'':<{width}}   {one_line(file)} {one_line(reason)}")
        if len(found["damaged"]) > _SHOWN:
            click.echo(f"{'':<{width}}   and {len(found['damaged']) - _SHOWN:,} more files")
