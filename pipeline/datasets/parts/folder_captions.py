"""Captions of your own videos as people write them: tables, JSON lines, JSON, plain text, a text
beside each video.

Every format gives the same: where it stands, how it names the video, the text, and, if it says so,
its split, its moment of the film and its group.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import log
from pipeline.datasets.base import Faults
from pipeline.datasets.parts.annotation_files import (
    LAYOUTS,
    caption_text,
    expect_columns,
    read_cells,
    read_json,
    read_lines,
    read_text,
)
from pipeline.datasets.parts.caption_columns import (
    SPLIT_NAMES,
    SPLITS,
    Columns,
    Roles,
    Row,
    choose,
    first_in,
    is_missing,
    moment_of,
    split_of,
    texts_of,
)
from pipeline.errors import DataError
from pipeline.video.moment import Moment

_FOREIGN = frozenset(LAYOUTS) - {
    "captions of DiDeMo",
    "lists of captions by video",
    "a text by video",
}
_SEPARATORS = (",", "\t", ";")
_SAID = {  # how the note on columns calls each role
    "video": "videos",
    "caption": "captions",
    "split": "splits",
    "start": "starts of moments",
    "end": "ends of moments",
    "group": "groups",
}
Located = tuple[str, Row]


@dataclass
class Spoken:
    """A caption as found: where (file:line), the video as it was named, the text; its split or "",
    its moment (None: the whole film), its group or "".
    """

    where: str
    video: str
    text: str
    split: str = ""
    moment: Moment | None = None
    group: str = ""


@dataclass
class FolderReading:
    """What a format reads, and where it leaves what it noticed.

    faults: of the whole file. bad: rows that may be left out, by kind. is_video: whether a name is
    that of a video in the folder.
    """

    path: Path
    options: Columns
    faults: Faults
    bad: Faults
    is_video: Callable[[str], bool]
    notes: list[str] = field(default_factory=list)


def _table(reading: FolderReading) -> Iterator[Spoken]:
    path, options = reading.path, reading.options
    head = read_text(path, options.encoding).split("\n", 1)[0]
    separator = max(_SEPARATORS, key=head.count)
    (_, columns), *lines = read_cells(path, reading.bad, separator, options.encoding) or [("", [])]
    rows = [(where, dict(zip(columns, values, strict=True))) for where, values in lines]
    roles = choose([dict.fromkeys(columns)], options, reading.is_video)
    if not (roles.video and roles.caption):
        every = [(f"{path.name}:1", columns), *lines]
        if columns := _without_header([values for _, values in every], reading.is_video):
            reading.notes.append(f"{path.name}: its first line names no columns: it is a row")
            rows = [(where, dict(zip(columns, values, strict=True))) for where, values in every]
            roles = choose([row for _, row in rows], options, reading.is_video)
    expect_columns(
        path,
        columns or every[0][1],
        roles.video[0] if roles.video else options.video_column or "video",
        roles.caption[0] if roles.caption else options.caption_column or "caption",
    )
    yield from _rows(rows, reading)


def _without_header(lines: list[list[str]], is_video: Callable[[str], bool]) -> list[str]:
    """Return names for the columns of a table whose first line is a row already; [] where that is
    not beyond doubt: one column names videos in every line, one other is text, any third is splits.
    """
    if len(lines) < 2:
        return []
    names = []
    for values in zip(*lines, strict=True):
        if all(map(is_video, values)):
            names.append("video")
        elif all(split_of(value) for value in values):
            names.append("split")
        else:
            names.append("caption")
    return names if sorted(names) in (["caption", "video"], ["caption", "split", "video"]) else []


def _json_lines(reading: FolderReading) -> Iterator[Spoken]:
    rows: list[Located] = []
    for where, line in read_lines(reading.path, reading.options.encoding):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            reading.bad.add("line that is not JSON", f"{line[:40]!r} ({where})")
            continue
        rows += _entry(where, entry, reading)
    yield from _rows(rows, reading)


def _json_file(reading: FolderReading) -> Iterator[Spoken]:
    """Yield a list of objects; {video: caption or list of captions}; either of them by split; or
    COCO.
    """
    found, value = read_json(reading.path)
    if (parts := _by_split(value)) is None:
        if (coco := _coco(value)) is not None:
            yield from _rows([(reading.path.name, row) for row in coco], reading)
            return
        if found in _FOREIGN:
            fix = (
                "Is it the file of another data set? `python cli.py list datasets` shows those with"
                " a reader."
            )
            raise DataError(
                f"holds {found}, not videos with their captions", where=reading.path, fix=fix
            )
        parts = {"": value}
    if not all(isinstance(part, list | dict) for part in parts.values()):
        reading.faults.add("file that is neither a list nor an object", reading.path.name)
        return
    rows = [row for split, part in parts.items() for row in _entries(split, part, reading)]
    yield from _rows(rows, reading)


def _by_split(value: object) -> dict[str, object] | None:
    """Return {split: its part} of an object whose keys are all splits and whose values hold
    entries.
    """
    if not isinstance(value, dict) or not value or not all(k.lower() in SPLIT_NAMES for k in value):
        return None
    for part in value.values():
        is_list = isinstance(part, list) and all(isinstance(entry, dict) for entry in part)
        if not is_list and not isinstance(part, dict):
            return None
    return {SPLIT_NAMES[split.lower()]: part for split, part in value.items()}


def _coco(value: object) -> list[Row] | None:
    """Return the captions of a COCO file, each with the file that its image or video entry
    names.
    """
    if not isinstance(value, dict) or not isinstance(value.get("annotations"), list):
        return None
    for kind in ("images", "videos"):
        files = _coco_files(value.get(kind))
        if files:
            key = f"{kind[:-1]}_id"
            rows = [a for a in value["annotations"] if isinstance(a, dict) and "caption" in a]
            return [
                {"video": files.get(row.get(key), str(row.get(key))), "caption": row["caption"]}
                for row in rows
            ]
    return None


def _coco_files(entries: object) -> dict[object, str]:
    files: dict[object, str] = {}
    for entry in entries if isinstance(entries, list) else []:
        name = entry.get("file_name") or entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and isinstance(entry.get("id"), int | str):
            files[entry["id"]] = name
    return files


def _entries(split: str, part: list | dict, reading: FolderReading) -> Iterator[Located]:
    name = f"{reading.path.name}: {split} " if split else f"{reading.path.name}: "
    marks = {"split": split} if split else {}
    if isinstance(part, list):
        for n, entry in enumerate(part):
            for where, row in _entry(f"{name}entry {n}", entry, reading):
                yield where, row | marks
        return
    for video, texts in part.items():
        row = texts if isinstance(texts, dict) else {"caption": texts}
        yield f"{name}{video!r:.40}", row | {"video": video} | marks


def _entry(where: str, entry: object, reading: FolderReading) -> list[Located]:
    if isinstance(entry, dict):
        return [(where, entry)]
    reading.bad.add("entry without a video and a caption", f"{entry!r:.60} ({where})")
    return []


def _rows(rows: list[Located], reading: FolderReading) -> Iterator[Spoken]:
    """Yield the captions of all rows by the roles of their columns, which are noted."""
    roles = choose([row for _, row in rows], reading.options, reading.is_video)
    reading.notes.append(_note(reading.path.name, [row for _, row in rows], roles))
    for where, row in rows:
        video, caption = first_in(row, roles.video), first_in(row, roles.caption)
        if video is None or caption is None or row[video] is None:
            reading.bad.add("entry without a video and a caption", f"{row!r:.60} ({where})")
            continue
        yield from _one(where, row, (row[video], row[caption]), roles, reading.bad)


def _note(name: str, rows: list[Row], roles: Roles) -> str:
    """Return which columns were read as what, and which were not."""
    used = roles.used(rows)
    read = [
        f"{_SAID[what]} in column {' or '.join(map(log.plain, columns))}"
        for what, columns in used.items()
    ]
    known = {column for columns in used.values() for column in columns}
    rest = [c for c in dict.fromkeys(c for row in rows for c in row) if c not in known]
    unread = f"; not read: {', '.join(map(log.plain, map(str, rest)))}" if rest else ""
    return f"{name}: {', '.join(read)}{unread}"


def _text_file(reading: FolderReading) -> Iterator[Spoken]:
    """`video<tab>caption` or `video caption`; `video#number caption` as in the Dual Encoding files.
    A line that begins with # is a remark.
    """
    for where, line in read_lines(reading.path, reading.options.encoding):
        if line.startswith("#"):
            continue
        video, found, text = line.strip().partition("\t" if "\t" in line.strip() else " ")
        if not found:
            reading.bad.add("line without a video and a caption", f"{line[:40]!r} ({where})")
            continue
        stem, _, number = video.rpartition("#")
        name = stem if stem and number.isdigit() else video
        yield from _spoken(Spoken(where, name, ""), [text], reading.bad)


def side_file(video: Path) -> Path:
    return video.with_suffix(".txt")


def side_texts(paths: dict[str, Path], options: Columns, bad: Faults) -> Iterator[Spoken]:
    for video_id, path in paths.items():
        if (side := side_file(path)).is_file():
            for where, line in read_lines(side, options.encoding):
                yield from _spoken(Spoken(where, video_id, ""), [line], bad)


def _one(
    where: str, row: Row, named: tuple[object, object], roles: Roles, bad: Faults
) -> Iterator[Spoken]:
    """Yield the captions of one row or entry; faults for what is not text, empty, or an unknown
    split.
    """
    video, texts = named
    if isinstance(video, int | float) and not isinstance(video, bool):
        video = f"{video:g}" if isinstance(video, float) else str(video)
    if not isinstance(video, str) or is_missing(video):
        bad.add("video that is no text", f"{video!r:.40} ({where})")
        return
    value = _value(row, roles.split)
    split = split_of(value)
    if split is None:
        bad.add(f"split other than {', '.join(SPLITS)}", f"{value!r:.40} ({where})")
        return
    try:
        moment = moment_of(_value(row, roles.start), _value(row, roles.end))
    except ValueError as error:
        bad.add("moment that is none", f"{error} ({where})")
        return
    group = _value(row, roles.group)
    name = "" if group is None else str(group).strip()
    yield from _spoken(
        Spoken(where=where, video=video.strip(), text="", split=split, moment=moment, group=name),
        texts_of(texts),
        bad,
    )


def _value(row: Row, columns: tuple[str, ...]) -> object:
    column = first_in(row, columns)
    return None if column is None else row[column]


def _spoken(found: Spoken, texts: list[object], bad: Faults) -> Iterator[Spoken]:
    for text in texts or [""]:
        if text is None:
            bad.add("caption without text", found.where)
            continue
        clean = caption_text(text, found.where, bad).strip()
        if not is_missing(clean):
            yield Spoken(**{**vars(found), "text": clean})
        elif isinstance(text, str):
            shown = f"{clean!r} ({found.where})" if clean else found.where
            bad.add("caption without text", shown)


FORMATS: dict[str, Callable[[FolderReading], Iterator[Spoken]]] = {
    ".csv": _table,
    ".tsv": _table,
    ".jsonl": _json_lines,
    ".json": _json_file,
    ".txt": _text_file,
}
