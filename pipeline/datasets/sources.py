"""Where videos come from: a raw folder, the output folder of a step, or the files a dataset names; one list for all."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.artefact import Artefact
from pipeline.core.files import DigestCache
from pipeline.core.state import STATE, digest, read_manifest
from pipeline.datasets import base
from pipeline.errors import DataError

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .qt .3gp .3g2 .avi .mkv .webm .flv .f4v .wmv .asf .mpg .mpeg .ts .m2ts .mts .vob .ogv .gif .nut "
    ".mxf .dv".split()
)


@dataclass(frozen=True)
class Source:
    """One video to read. `key` is the digest of its bytes; "" with `problem` set when it cannot be read at all."""

    id: str
    path: Path
    key: str
    problem: str = ""


@dataclass(frozen=True)
class Listing:
    sources: list[Source]
    ignored: int = 0  # files of a raw folder that are not videos by their suffix


def video_sources(artefact: Artefact, cache: Path | None = None) -> Listing:
    """All videos of an artefact of kind "video_files", sorted by id (a step's: in its own order).

    cache: where digests of raw files are remembered (a step's `_state/digests.jsonl`).
    Raises DataError when the folder is missing, or two videos have the same id even with their suffixes.
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
    return Listing(_with_digests(((v.id, v.path) for v in videos if v.path is not None), cache))


def _of_folder(folder: Path, cache: Path | None) -> Listing:
    if not folder.is_dir():
        raise DataError("there is no such folder", where=folder, fix="Give --in the folder that holds the videos.")
    if (folder / STATE).is_dir():
        raise DataError(
            "this step has not finished", where=folder, fix="Run the same command for it again; then run this one."
        )
    paths, ignored = [], 0
    for path in _walk(folder):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            paths.append(path)
        else:
            ignored += 1
    return Listing(_with_digests(_ids(folder, paths), cache), ignored)


def _walk(folder: Path) -> Iterator[Path]:
    # os.walk does not follow links to folders, so a link to a parent cannot make it endless
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(root, name)
            if path.is_file() or (path.is_symlink() and not path.is_dir()):  # pipes and devices are never opened
                if path.is_symlink() and (target := _target(path)) and not (target.is_file() or not target.exists()):
                    continue
                yield path


def _target(path: Path) -> Path | None:
    try:
        return path.resolve(strict=False)
    except (OSError, RuntimeError):
        return None


def _ids(folder: Path, paths: list[Path]) -> list[tuple[str, Path]]:
    by_stem: dict[str, list[Path]] = {}
    for path in paths:
        by_stem.setdefault(str(path.relative_to(folder).with_suffix("")), []).append(path)
    taken: dict[str, Path] = {}
    for stem, same in by_stem.items():
        for path in same:
            item_id = stem if len(same) == 1 else str(path.relative_to(folder))
            if item_id in taken:
                raise DataError(
                    f"two videos would have the id {item_id!r}: {taken[item_id].name} and {path.name}",
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
