"""Import features from text (`id v1 v2 ... vD` per line), the form in which the published
extractors write them.

Source: docs/specs/dual-encoding.md, section 9.1; danieljf24/hybrid_space: util/txt2bin.py,
util/get_frameInfo.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from pipeline.errors import DataError
from pipeline.stores.big_file.frame_lists import group_frames
from pipeline.stores.big_file.writer import BigFileWriter

_LONGEST_LINE = 64 << 20


@dataclass
class TextImport:
    """What became of the lines. repeated: ids of later lines whose id had come before; not_finite:
    of rows left out.
    """

    rows: int = 0
    dim: int = 0
    repeated: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)


def import_text(source: Path, folder: Path) -> TextImport:
    """Make the BigFile `folder` from the text file `source` and say which rows were left out; never
    silently.

    The dimension is that of the first row. `video2frames.txt` is written if all ids are frame ids
    (`<video>_<number>`). Raises DataError with the line number for a row of another length, or a
    value that is not a number.
    """
    rows = read_rows(source)
    first = next(rows, None)
    if first is None:
        raise DataError(
            "there is no row in it", where=source, fix="Expected lines of the form: id v1 v2 ... vD"
        )
    report = TextImport(dim=len(first[2]))
    seen: set[str] = set()
    with BigFileWriter(folder, report.dim) as writer:
        for number, item_id, values in chain([first], rows):
            if len(values) != report.dim:
                raise _bad_line(
                    source, number, f"{len(values)} values, the first row has {report.dim}"
                )
            if item_id in seen:
                report.repeated.append(item_id)
            elif not np.isfinite(values).all():
                report.not_finite.append(item_id)
            else:
                writer.append(item_id, [item_id], values[None])
            seen.add(item_id)
        report.rows = len(writer.videos)
        writer.finish(group_frames(writer.videos))
    return report


def read_rows(source: Path) -> Iterator[tuple[int, str, np.ndarray]]:
    """Yield (line number, id, float32 values) of each line that is not blank. DataError names a
    line that is no row.
    """
    with source.open("rb") as file:
        number = 0
        while line := file.readline(_LONGEST_LINE):
            number += 1
            if len(line) == _LONGEST_LINE:
                raise _bad_line(source, number, f"longer than {_LONGEST_LINE:,} bytes")
            item_id, *values = line.split() or [b""]
            if not item_id:
                continue
            try:
                with np.errstate(
                    over="ignore"
                ):  # such a value becomes infinite, and its row is left out
                    row = np.array([float(v) for v in values], np.float32)
            except ValueError as error:
                raise _bad_line(source, number, str(error)) from error
            yield number, item_id.decode("iso-8859-1"), row


def _bad_line(source: Path, number: int, what: str) -> DataError:
    return DataError(
        what, where=f"{source}:{number}", fix="Expected lines of the form: id v1 v2 ... vD"
    )
