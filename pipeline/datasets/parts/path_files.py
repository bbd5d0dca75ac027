"""Write the lists that published readers expect: video_path.json (CenterCLIP, DGL), video_dict.json
and sentence_dict.json (the DRL fork). They are read by `video_files.read_list` and `msrvtt`.

Source: docs/specs/preprocessing.md, section 1.5; docs/specs/datasets.md, sections 2, 4 and 5.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from pipeline.datasets.base import Annotations, Faults
from pipeline.datasets.parts.sources import list_folder
from pipeline.errors import DataError


def video_paths(folder: Path) -> dict[str, str]:
    """Return {file name without its last suffix: path below `folder`} of all videos, sorted.

    DataError if there is no video, or two have the same name: the published script silently keeps
    the last one.
    """
    if not folder.is_dir():
        raise DataError(
            "there is no such folder", where=folder, fix="Give the folder that holds the videos."
        )
    found: dict[str, str] = {}
    faults = Faults(folder)
    for _, path in list_folder(folder):
        relative = path.relative_to(folder).as_posix()
        other = found.setdefault(path.stem, relative)
        if other != relative:
            faults.add("name that two videos have", f"{other} and {relative}")
    faults.raise_if_any(
        "Readers know videos by name alone: rename one of them, or move it out of the folder."
    )
    if not found:
        raise DataError(
            "there is no video in it", where=folder, fix="Give the folder that holds the videos."
        )
    return dict(sorted(found.items()))


def fork_videos(
    annotations: Annotations, split: str, paths: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return ({video id: path}, ids without a file) of a split, in the order in which its captions
    name the videos.
    """
    ids = list(dict.fromkeys(caption.video_id for caption in annotations.texts(split)))
    return {i: paths[i] for i in ids if i in paths}, [i for i in ids if i not in paths]


def fork_sentences(annotations: Annotations, split: str) -> dict[str, list]:
    """Return {"0": [video id, [caption, start, end]], ...} of a split; start and end are seconds or
    null.
    """
    rows = enumerate(annotations.texts(split))
    return {str(n): [c.video_id, [c.text, *_span(annotations, c.video_id)]] for n, c in rows}


def text(value: dict) -> str:
    """JSON as the published scripts write it, byte for byte: indented by 4, plain ASCII, no newline
    at the end.
    """
    return json.dumps(value, indent=4)


def by_id(
    annotations: Annotations, folder: Path, listed: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """Return {video id: path below the folder}: the file its reader names, else the one that has
    its id as name.
    """
    names = dict(listed)
    found = {}
    for video in annotations.videos.values():
        if video.path is not None and video.path.is_relative_to(folder):
            found[video.id] = video.path.relative_to(folder).as_posix()
        elif video.id in names:
            found[video.id] = names[video.id]
    return found


def _span(annotations: Annotations, video_id: str) -> tuple[float | None, float | None]:
    video = annotations.videos[video_id]
    return video.start, video.end
