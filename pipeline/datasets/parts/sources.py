"""Where videos come from: a raw folder, the output folder of a step, or the files a dataset names;
one list for all.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.core.artefact import Artefact
from pipeline.core.files import DigestCache
from pipeline.core.state import STATE, digest, read_manifest
from pipeline.datasets import base
from pipeline.datasets.parts.listing import list_below
from pipeline.datasets.parts.video_marks import is_video_name
from pipeline.errors import DataError, ItemError
from pipeline.video.moment import Moment

_NO_FILE = "the annotations name this video, but there is no file for it"


@dataclass(frozen=True)
class Source:
    """One video to read. `key` is the digest of its bytes; "" with `problem` set when it cannot be
    read at all.

    moment: the part of the file that counts (None: all); then `key` says so too.
    """

    id: str
    path: Path
    key: str
    problem: str = ""
    moment: Moment | None = None


@dataclass(frozen=True)
class Listing:
    sources: list[Source]
    ignored: int = 0  # files of a raw folder that are not videos by their suffix


def unusable(problem: str, reason: str) -> ItemError:
    """Return what a step raises for a source with a `problem`: `reason`, or "missing" where there
    is no file at all.
    """
    return ItemError("missing" if problem == _NO_FILE else reason, problem)


def video_sources(artefact: Artefact, cache: Path | None = None) -> Listing:
    """Return all videos of an artefact of kind "video_files", sorted by id (a step's or a
    dataset's: in its own order).

    A video of a dataset that has no file is a source with a problem: the step that reads it sets it
    aside as missing.
    cache: where digests of raw files are remembered (a step's `_state/digests.jsonl`).
    Raises DataError when the folder is missing, or two videos have the same id even with their
    suffixes.
    """
    if artefact.step == "dataset":
        return _of_dataset(artefact, cache)
    if read_manifest(artefact.path) is not None:
        return _of_step(artefact)
    return _of_folder(artefact.path, cache)


def _of_step(artefact: Artefact) -> Listing:
    sources = []
    for record in artefact.records():
        for name, facts in record.outputs.items():
            sources.append(Source(record.id, artefact.path / name, facts["sha256"]))
    return Listing(sources)


def _of_dataset(artefact: Artefact, cache: Path | None) -> Listing:
    videos = base.load(artefact).videos.values()
    there = {v.id: v.path for v in videos if v.path is not None}
    if not there:
        raise DataError(
            f"none of the {len(videos):,} videos of this dataset has a file",
            where=artefact.path,
            fix=(
                "Put the videos into place (python cli.py run PIPELINE --dry-run says where), or"
                " name a step that makes them."
            ),
        )
    found = {source.id: source for source in _with_digests(iter(there.items()), cache)}
    missing = digest(["missing"])
    return Listing(
        [
            (
                _cut(found[v.id], Moment.of(v.start, v.end))
                if v.id in found
                else Source(v.id, artefact.path, missing, _NO_FILE)
            )
            for v in videos
        ]
    )


def _cut(source: Source, moment: Moment | None) -> Source:
    if moment is None or source.problem:
        return source
    marks = [moment.end] if not moment.start else [moment.start, moment.end]
    return replace(source, key=digest([source.key, *marks]), moment=moment)


def _of_folder(folder: Path, cache: Path | None) -> Listing:
    if folder.is_file():
        raise DataError(
            "it is a file; this stage reads a folder of videos",
            where=folder,
            fix=(
                "Put videos into a folder. An LMDB is read by frames (--in), features (--frames),"
                " index, train and evaluate (--store)."
            ),
        )
    if not folder.is_dir():
        raise DataError(
            "there is no such folder",
            where=folder,
            fix="Give --in the folder that holds the videos.",
        )
    if (folder / STATE).is_dir():
        raise DataError(
            "this step has not finished",
            where=folder,
            fix="Run the same command for it again; then run this one.",
        )
    listing = list_below(folder)
    listing.expect_videos()
    listing.tell()
    found = _ids(folder, listing.videos)
    return Listing(_with_digests(found, cache), len(listing.files) - len(found))


def list_folder(folder: Path) -> list[tuple[str, Path]]:
    """Return (id, path) of the videos below a folder, sorted by id; says once what is passed over.

    Raises DataError if two have the same id even with suffixes, or a folder cannot be listed.
    """
    listing = list_below(folder)
    listing.tell()
    return _ids(folder, listing.videos)


def _ids(folder: Path, paths: list[Path]) -> list[tuple[str, Path]]:
    by_stem: dict[str, list[Path]] = {}
    start = (
        len(str(folder / "x")) - 1
    )  # of the part below the folder; plain text, as there may be 100,000 paths
    for path in paths:
        name = str(path)
        suffix = len(path.suffix) if is_video_name(name) else 0  # ".886" of a time is none
        by_stem.setdefault(name[start : len(name) - suffix], []).append(path)
    taken: dict[str, Path] = {}
    for stem, same in by_stem.items():
        for path in same:
            item_id = stem if len(same) == 1 else str(path.relative_to(folder))
            if item_id in taken:
                raise DataError(
                    f"two videos would have the id {item_id!r}: {taken[item_id].name} and"
                    f" {path.name}",
                    where=folder,
                    fix="Rename one of them. Nothing was written.",
                )
            taken[item_id] = path
    return sorted(taken.items())


def _with_digests(pairs: list[tuple[str, Path]] | Iterator, cache: Path | None) -> list[Source]:
    remembered = DigestCache(cache) if cache else DigestCache(Path(os.devnull))
    sources = []
    for item_id, path in pairs:
        try:
            sources.append(Source(item_id, path, remembered(path)))
        except OSError as error:
            problem = str(error.strerror or error)
            sources.append(Source(item_id, path, digest(["unreadable", problem]), problem))
    if cache:
        remembered.save()
    return sources
