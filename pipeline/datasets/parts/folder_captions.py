"""Captions of your own videos as people write them: tables, JSON lines, JSON, plain text, a text
beside each video.

Every format gives the same: where it stands, how it names the video, the text, the split if it says
one.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.datasets.base import Faults
from pipeline.datasets.parts.annotation_files import (
    LAYOUTS,
    caption_text,
    expect_columns,
    read_json,
    read_lines,
    read_table,
    read_text,
)
from pipeline.errors import DataError

SPLITS = ("train", "val", "test")
_VIDEO_COLUMNS = (
    "video_id",
    "video",
    "file",
    "filename",
    "file_name",
    "path",
    "clip",
    "clip_id",
    "name",
    "id",
)
_CAPTION_COLUMNS = ("caption", "sentence", "text", "description", "captions", "sentences", "title")
_SPLIT_NAMES = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
}
_FOREIGN = frozenset(LAYOUTS) - {
    "captions of DiDeMo",
    "lists of captions by video",
    "a text by video",
}
_SEPARATORS = (",", "\t", ";")


class Columns(Protocol):
    """The options of `folder` that say how to read a file; None: the usual names."""

    video_column: str | None
    caption_column: str | None
    split_column: str
    encoding: str


@dataclass
class Spoken:
    """A caption as found: where (file:line), the video as it was named, the text, its split or
    "".
    """

    where: str
    video: str
    text: str
    split: str = ""


@dataclass
class Reading:
    """What a format reads, and where it leaves what it noticed."""

    path: Path
    options: Columns
    faults: Faults
    notes: list[str] = field(default_factory=list)


def _table(reading: Reading) -> Iterator[Spoken]:
    path, options = reading.path, reading.options
    head = read_text(path, options.encoding).split("\n", 1)[0]
    separator = max(_SEPARATORS, key=head.count)
    columns, rows = read_table(path, reading.faults, separator, options.encoding)
    video = options.video_column or next(
        (c for c in columns if c.lower() in _VIDEO_COLUMNS), "video"
    )
    caption = options.caption_column or next(
        (c for c in columns if c.lower() in _CAPTION_COLUMNS), "caption"
    )
    expect_columns(path, columns, video, caption)
    reading.notes.append(f"{path.name}: videos in column {video}, captions in column {caption}")
    for where, row in rows:
        yield from _one(
            where, row[video], row[caption], row.get(options.split_column, ""), reading.faults
        )


def _json_lines(reading: Reading) -> Iterator[Spoken]:
    for where, line in read_lines(reading.path, reading.options.encoding):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            reading.faults.add("line that is not JSON", f"{line[:40]!r} ({where})")
            continue
        yield from _entry(where, entry, reading)


def _json_file(reading: Reading) -> Iterator[Spoken]:
    """A list of objects, or {video: caption or list of captions}."""
    found, value = read_json(reading.path)
    if found in _FOREIGN:
        fix = (
            "Is it the file of another data set? `python cli.py list datasets` shows those with a"
            " reader."
        )
        raise DataError(
            f"holds {found}, not videos with their captions", where=reading.path, fix=fix
        )
    if isinstance(value, list):
        for n, entry in enumerate(value):
            yield from _entry(f"{reading.path.name}: entry {n}", entry, reading)
    elif isinstance(value, dict):
        for video, texts in value.items():
            yield from _one(f"{reading.path.name}: {video!r:.40}", video, texts, "", reading.faults)
    else:
        reading.faults.add("file that is neither a list nor an object", reading.path.name)


def _entry(where: str, entry: object, reading: Reading) -> Iterator[Spoken]:
    options = reading.options
    values = {str(k).lower(): v for k, v in entry.items()} if isinstance(entry, dict) else {}
    video = next(
        (values[k] for k in _keys(options.video_column, _VIDEO_COLUMNS) if k in values), None
    )
    texts = next(
        (values[k] for k in _keys(options.caption_column, _CAPTION_COLUMNS) if k in values), None
    )
    if video is None or texts is None:
        reading.faults.add("entry without a video and a caption", f"{entry!r:.60} ({where})")
        return
    yield from _one(
        where, video, texts, values.get(options.split_column.lower()) or "", reading.faults
    )


def _keys(given: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    return (given.lower(),) if given else usual


def _text_file(reading: Reading) -> Iterator[Spoken]:
    """`video<tab>caption` or `video caption`; `video#number caption` as in the Dual Encoding
    files.
    """
    for where, line in read_lines(reading.path, reading.options.encoding):
        video, found, text = line.strip().partition("\t" if "\t" in line.strip() else " ")
        if not found:
            reading.faults.add("line without a video and a caption", f"{line[:40]!r} ({where})")
            continue
        stem, _, number = video.rpartition("#")
        yield from _one(
            where, stem if stem and number.isdigit() else video, text, "", reading.faults
        )


def side_file(video: Path) -> Path:
    return video.with_suffix(".txt")


def side_texts(paths: dict[str, Path], options: Columns, faults: Faults) -> Iterator[Spoken]:
    for video_id, path in paths.items():
        if (side := side_file(path)).is_file():
            for where, line in read_lines(side, options.encoding):
                yield from _one(where, video_id, line, "", faults)


def _one(
    where: str, video: object, texts: object, split: object, faults: Faults
) -> Iterator[Spoken]:
    """The captions of one row or entry; faults for what is no text, empty, or an unknown split."""
    if isinstance(video, int) and not isinstance(video, bool):
        video = str(video)
    if not isinstance(video, str) or not video.strip():
        faults.add("video that is no text", f"{video!r:.40} ({where})")
        return
    name = split.strip().lower() if isinstance(split, str) else ""
    if _SPLIT_NAMES.get(name, name) not in ("", *SPLITS) or not isinstance(split, str):
        faults.add(f"split other than {', '.join(SPLITS)}", f"{split!r:.40} ({where})")
        return
    for text in texts if isinstance(texts, list) else [texts]:
        clean = caption_text(text, where, faults).strip()
        if clean:
            yield Spoken(where, video.strip(), clean, _SPLIT_NAMES.get(name, name))
        elif isinstance(text, str):
            faults.add("caption without text", where)


FORMATS: dict[str, Callable[[Reading], Iterator[Spoken]]] = {
    ".csv": _table,
    ".tsv": _table,
    ".jsonl": _json_lines,
    ".json": _json_file,
    ".txt": _text_file,
}
