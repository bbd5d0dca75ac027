"""The --set values of a pipeline's last run, kept in its folder: a bare `status` or `run` means the
same run.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline import log
from pipeline.core import ranks
from pipeline.core.files import atomic_write
from pipeline.errors import DataError

FILE = "_set.json"
NONE = "none"


def overrides(folder: Path, given: Sequence[str]) -> list[str]:
    """Return what --set says: as given, else as the last run in this folder had it, which is said.

    `--set none` alone means none at all.
    """
    if list(given) == [NONE]:
        return []
    if given:
        return list(given)
    kept = _read(folder / FILE)
    if kept:
        shown = " ".join(f"--set {one}" for one in kept)
        log.info(f"{folder}: as in its last run: {shown}   (--set none: without)")
    return kept


def keep(folder: Path, values: Sequence[str]) -> None:
    """Remember the --set values of a run that begins."""
    if ranks.rank() != 0 or _read(folder / FILE) == list(values):
        return
    if not values:
        (folder / FILE).unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / FILE, json.dumps(list(values), indent=1) + "\n")


def _read(file: Path) -> list[str]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=file, fix="Remove it.") from error
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise DataError("is no list of --set values", where=file, fix="Remove it.")
    return found
