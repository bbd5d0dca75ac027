"""Which column or key of a caption file means what, and what its values say.

Columns are chosen by preference, never by their order in the file; names are compared without case,
blanks and hyphens count as `_`.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from pipeline.video.moment import Moment

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "testing": "test",
} | {split: split for split in SPLITS}
_VIDEOS = (
    "video_id video videoid video_name video_file video_path file file_name filename path file_path"
    " filepath clip clip_id clip_name clip_path image_id name id"
).split()
_CAPTIONS = (
    "caption sentence text description captions sentences texts descriptions golden_caption"
    " en_caption query summary title"
).split()
_SPLITS = ("split", "subset", "set", "partition", "data_split")
_STARTS = "start start_time start_sec start_seconds starttime begin begin_time t_start".split()
_ENDS = "end end_time end_sec end_seconds endtime stop stop_time t_end".split()
_GROUPS = ("group", "group_id", "film", "movie")
_MISSING = frozenset({"", "null", "nan", "n/a", "na", "none", "<na>", "#n/a"})
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_LIST = re.compile(rf"[\[(]\s*(?:{_QUOTED})(?:[\s,]+(?:{_QUOTED}))*[\s,]*[\])]", re.DOTALL)
_CLOCK = re.compile(r"(?:(?:([0-9]+):)?([0-9]{1,2}):)?([0-9]+(?:[.,][0-9]+)?)\s*s?")
_ENOUGH = 50  # rows that show which column names the videos
Row = dict[str, object]


class Columns(Protocol):
    """The options of `folder` that say how to read a file; None: the usual names."""

    video_column: str | None
    caption_column: str | None
    split_column: str
    group_column: str | None
    encoding: str


@dataclass(frozen=True)
class Roles:
    """Columns that may hold each thing, best first; a row is read by the first that it has."""

    video: tuple[str, ...]
    caption: tuple[str, ...]
    split: tuple[str, ...]
    start: tuple[str, ...]
    end: tuple[str, ...]
    group: tuple[str, ...]

    def used(self, rows: Iterable[Row]) -> dict[str, list[str]]:
        """Return {what: the columns that were read for it}, only what was."""
        found: dict[str, dict[str, None]] = {}
        for row in rows:
            for what, columns in vars(self).items():
                column = first_in(row, columns)
                if column is not None:
                    found.setdefault(what, {})[column] = None
        return {what: list(names) for what, names in found.items()}


def choose(rows: list[Row], options: Columns, is_video: Callable[[str], bool]) -> Roles:
    """Return the roles of the columns of all rows. is_video: whether a name is that of a video that
    is there; of several columns that may name the videos, the first one whose values do is taken.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return Roles(
        video=_by_values(_among(columns, _VIDEOS, options.video_column), rows, is_video),
        caption=_among(columns, _CAPTIONS, options.caption_column),
        split=_splits(columns, rows, options.split_column),
        start=_among(columns, _STARTS),
        end=_among(columns, _ENDS),
        group=_among(columns, _GROUPS, options.group_column),
    )


def first_in(row: Row, columns: tuple[str, ...]) -> str | None:
    """Return the first of the columns that the row has."""
    return next((column for column in columns if column in row), None)


def is_missing(text: str) -> bool:
    """Return whether a cell says that there is nothing: empty, NULL, nan, N/A, None."""
    return text.strip().lower() in _MISSING


def texts_of(value: object) -> list[object]:
    """Return the captions of a cell: a list, a list written as text, or one."""
    if isinstance(value, list):
        return value
    if isinstance(value, str) and _LIST.fullmatch(value.strip()):
        return [re.sub(r"\\(.)", r"\1", quoted[1:-1]) for quoted in re.findall(_QUOTED, value)]
    return [] if value == "[]" else [value]


def split_of(value: object) -> str | None:
    """train, val or test, "" for an empty cell, or None for anything else."""
    if value is None:
        return ""
    name = value.strip().lower() if isinstance(value, str) else None
    return "" if name == "" else SPLIT_NAMES.get(name)


def moment_of(start: object, end: object) -> Moment | None:
    """Return the moment of a row; None: the whole film. ValueError for what is no time, or ends
    before it starts.
    """
    begin, stop = _time(start), _time(end)
    if stop is not None and stop <= (begin or 0.0):
        raise ValueError(f"{end!r:.20} is not after {start!r:.20}")
    return Moment.of(begin, stop)


def normal(column: str) -> str:
    """Return a column's name as names are compared."""
    return re.sub(r"[\s-]+", "_", column.strip().lower())


def _among(columns: list[str], usual: Iterable[str], given: str | None = None) -> tuple[str, ...]:
    wanted = [normal(given)] if given else usual
    return tuple(column for name in wanted for column in columns if normal(column) == name)


def _by_values(
    candidates: tuple[str, ...], rows: list[Row], is_video: Callable[[str], bool]
) -> tuple[str, ...]:
    def named(column: str) -> bool:
        values = [row[column] for row in rows[:_ENOUGH] if column in row]
        return any(isinstance(v, str | int) and is_video(str(v)) for v in values)

    if len(candidates) < 2:
        return candidates
    best = next((column for column in candidates if named(column)), candidates[0])
    return (best, *(column for column in candidates if column != best))


def _splits(columns: list[str], rows: list[Row], given: str) -> tuple[str, ...]:
    """Return the column called as the option says; else one of the usual names that holds only
    splits.
    """
    if exact := _among(columns, (), given):
        return exact
    usual = _among(columns, _SPLITS) if normal(given) == "split" else ()
    for column in usual:
        values = [split_of(row.get(column)) for row in rows]
        if all(value is not None for value in values) and any(values):
            return (column,)
    return ()


def _time(value: object) -> float | None:
    """Seconds of a number, of text like 12.5, or of a clock like 1:02:03.5."""
    if value is None or (isinstance(value, str) and is_missing(value)):
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        found = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
        if not found:
            raise ValueError(f"{value!r:.20} is not a time in seconds")
        hours, minutes, rest = found.groups()
        seconds = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest.replace(",", "."))
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{value!r:.20} is not a time in seconds")
    return seconds
