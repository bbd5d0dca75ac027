"""Annotation files as people have them: text, id lists, tables and JSON, each read strictly and
explained when wrong.

A byte-order mark, carriage returns, blank lines and a missing newline at the end do no harm. Bytes
that are not UTF-8, broken tables, keys that occur twice and the file of another data set are
a DataError that says so.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.datasets.base import Faults
from pipeline.errors import DataError

_LARGEST = 1 << 30  # bytes
_MARKS = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}  # of other encodings, at the beginning of a file
Line = tuple[str, str]  # where (file:line), text
Row = tuple[str, dict[str, str]]  # where, values by column
Cells = tuple[str, list[str]]  # where, values in order


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the text of a file without its byte-order mark. DataError if it is missing, huge, or
    in another encoding.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(
                f"larger than {_LARGEST >> 30} GB", where=path, fix="Is this an annotation file?"
            )
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, fix="Check the path."
        ) from error
    if encoding == "utf-8" and data[:2] in _MARKS:
        encoding = "utf-16"  # its mark says so
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        guess = _MARKS.get(data[:2], "WINDOWS-1252")
        raise DataError(
            f"not {encoding.upper()}: byte {data[error.start]:#04x} in line {line:,}",
            where=path,
            fix=(
                f"Save it as UTF-8; if it is {guess}: iconv -f {guess} -t UTF-8 {path.name} > new,"
                " then put it here."
            ),
        ) from None


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[Line]:
    """Yield the lines that are not blank, without their line ends; nothing else is stripped."""
    text = read_text(path, encoding).replace("\r\n", "\n").replace("\r", "\n")
    for n, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path.name}:{n}", line


def read_ids(path: Path, faults: Faults) -> list[str]:
    """Return ids of a list, in order: one per line, or a JSON list of strings. Unsafe ids and
    repetitions become faults.
    """
    if path.suffix == ".json":
        values = read_json(path, "a list of ids")[1]
        named = [(f"{path.name}: entry {n}", value) for n, value in enumerate(values)]
    else:
        named = ((where, line.strip()) for where, line in read_lines(path))
    ids: dict[str, None] = {}
    for where, video_id in named:
        if not isinstance(video_id, str):
            faults.add("id that is no text", f"{video_id!r:.40} ({where})")
        elif video_id in ids:
            faults.add("id that stands in a list twice", f"{video_id!r} ({where})")
        elif faults.check_id(video_id, where):
            ids[video_id] = None
    if not ids and not faults:
        faults.add("list without an id", path.name)
    return list(ids)


def read_table(
    path: Path, faults: Faults, delimiter: str = ",", encoding: str = "utf-8"
) -> tuple[list[str], list[Row]]:
    """Columns and rows of a table whose first line names the columns; values are stripped. Bad rows
    become faults.
    """
    (_, columns), *lines = read_cells(path, faults, delimiter, encoding) or [("", [])]
    return columns, [(where, dict(zip(columns, values, strict=True))) for where, values in lines]


def read_cells(path: Path, faults: Faults, delimiter: str, encoding: str) -> list[Cells]:
    """Return where each line of a table stands and its stripped values, the first line included; a
    line with another number of values than the first becomes a fault.

    A table for commas whose first line has none but semicolons is read with those, as Excel writes
    it. In a table with tabs quotes are text, unless the whole file is quoted as a table.
    """
    text = read_text(path, encoding)
    head = text.split("\n", 1)[0]
    if delimiter == "," and "," not in head and ";" in head:
        delimiter = ";"
    try:
        lines = _parsed(path, text, delimiter, csv.QUOTE_MINIMAL)
        if delimiter == "\t" and any("\n" in v or "\t" in v for _, row in lines for v in row):
            lines = _parsed(path, text, delimiter, csv.QUOTE_NONE)
    except csv.Error as error:
        if delimiter != "\t":
            raise DataError(
                str(error), where=path, fix="Are its quotes closed? Save it again as CSV."
            ) from None
        lines = _parsed(path, text, delimiter, csv.QUOTE_NONE)
    whole: list[Cells] = []
    for where, values in lines:
        if whole and len(values) != len(whole[0][1]):
            wanted = len(whole[0][1])
            what = f"row without {wanted} values (text with {delimiter!r} needs quotes)"
            faults.add(what, f"{len(values)} ({where})")
        else:
            whole.append((where, values))
    return whole


def _parsed(path: Path, text: str, delimiter: str, quoting: int) -> list[Cells]:
    """Return all lines that are not blank. csv.Error with the number of the line that is not a
    row.
    """
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, quoting=quoting
    )
    lines: list[Cells] = []
    try:
        for values in reader:
            if any(value.strip() for value in values):
                lines.append((f"{path.name}:{reader.line_num}", [v.strip() for v in values]))
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num:,} is not a row of a table: {error}") from None
    return lines


def expect_columns(path: Path, columns: list[str], *wanted: str) -> None:
    """DataError if a table lacks a column."""
    if missing := [name for name in wanted if name not in columns]:
        found = repr(", ".join(columns)[:80])[1:-1] or "nothing"
        raise DataError(
            f"no column {', '.join(missing)}; its first line is: {found}",
            where=path,
            fix=(
                f"Its first line must name the columns ({', '.join(wanted)}). Is it the file of"
                " another data set?"
            ),
        )


def read_json(path: Path, *wanted: str) -> tuple[str, object]:
    """Return (layout, value) of a JSON file that must have one of the layouts `wanted`, keys of
    LAYOUTS; any if none is named.

    DataError if it is no JSON, repeats a key, or holds something else: then the message says what
    that is.
    """
    text, repeated = read_text(path), []

    def unique(pairs: list[tuple[str, object]]) -> dict:
        value = dict(pairs)
        if len(value) != len(pairs):
            seen: set[str] = set()
            repeated.extend(key for key, _ in pairs if key in seen or seen.add(key))
        return value

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        place = (
            f"{path}:{error.lineno}:{error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else path
        )
        what = getattr(error, "msg", None) or str(error)
        raise DataError(
            f"not JSON: {what}", where=place, fix="Get the file again: is it whole?"
        ) from None
    if repeated:
        examples = "; ".join(map(repr, repeated[:3]))
        what = f"{len(repeated):,} x key that occurs twice: {examples}"
        raise DataError(what, where=path, fix="Remove the repetitions.")
    found = layout(value)
    if wanted and found not in wanted:
        raise DataError(
            f"holds {found}, not {' or '.join(wanted)}",
            where=path,
            fix="Is it the file of another data set?",
        )
    return found, value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def layout(value: object) -> str:
    """Return which of LAYOUTS a JSON value has, by its first entry; else a few words about it."""
    for name, fits in LAYOUTS.items():
        if fits(value):
            return name
    kind = {dict: "an object", list: "a list"}.get(type(value), "a single value")
    return f"{kind} of unknown layout" if value else f"{kind} without entries"


def _first(value: object, kind: type) -> object:
    """Return the first entry of a container of the given kind, else None."""
    if not isinstance(value, kind) or not value:
        return None
    return next(iter(value.values() if isinstance(value, dict) else value))


def _entries(kind: type, entry: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: entry(_first(value, kind))


def _holds(*keys: str) -> Callable[[object], bool]:
    return lambda entry: isinstance(entry, dict) and set(keys) <= entry.keys()


def _is_text(entry: object) -> bool:
    return isinstance(entry, str)


def _list_under(name: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and isinstance(value.get(name), list)


LAYOUTS: dict[str, Callable[[object], bool]] = {
    "captions of MSR-VTT (sentences)": _list_under("sentences"),
    "captions of MSR-VTT (annotations)": _list_under("annotations"),
    "captions of ActivityNet": _entries(dict, _holds("timestamps", "sentences")),
    "captions of DiDeMo": _entries(list, _holds("description", "video")),
    "captions of VATEX (enCap)": _entries(dict, _holds("enCap")),
    "the VATEX release (videoID, enCap)": _entries(list, _holds("videoID", "enCap")),
    "sentences of the DRL fork (sentence_dict)": _entries(
        dict,
        lambda e: isinstance(e, list) and len(e) == 2 and _is_text(e[0]) and isinstance(e[1], list),
    ),
    "lists of captions by video": _entries(
        dict, lambda e: isinstance(e, list) and all(isinstance(c, str) for c in e)
    ),
    "a text by video": _entries(dict, _is_text),
    "a list of ids": _entries(list, _is_text),
}


def caption_text(value: object, where: str, faults: Faults) -> str:
    """Return a caption as text; "" with a fault noted if it is none."""
    if not isinstance(value, str):
        faults.add("caption that is no text", f"{value!r:.40} ({where})")
        return ""
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            faults.add(
                "caption with half a character (a lone surrogate)", f"{value!r:.40} ({where})"
            )
            return ""
    return value
