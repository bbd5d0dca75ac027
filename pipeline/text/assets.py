"""The word lists that come with the toolkit (`data/`): where they are, how manifests name them, how
to read them.
"""

import gzip
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from pipeline.core.files import file_digest
from pipeline.errors import DataError

DATA = Path(__file__).resolve().parents[2] / "data"
STOP_WORDS = DATA / "stopwords" / "english-179.txt"


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file, packed with gzip if its name ends in .gz. DataError if
    it cannot be read.
    """
    try:
        data = path.read_bytes()
        return (
            (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8").splitlines()
        )
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=path, fix=repair(path)) from error


def repair(path: Path) -> str:
    """Return what to do about a word list that cannot be read."""
    if path.is_relative_to(DATA):
        return (
            "It comes with the toolkit: restore it (git checkout data); a volume mounted over data/"
            " must hold it too."
        )
    return (
        "Give another file, or leave the option out to use the tables that come with the toolkit."
    )


@lru_cache(maxsize=1)
def stop_words() -> frozenset[str]:
    """Return the 179 English stop words (lower case). Comment lines begin with #."""
    return frozenset(
        word for line in read_lines(STOP_WORDS) if not line.startswith("#") for word in line.split()
    )


def version(name: str, files: Iterable[Path]) -> str:
    """Return how manifests name what comes from files: "english-179 (sha256 0123456789ab)", one
    mark for all of them.

    DataError if one cannot be read.
    """
    mark = hashlib.sha256()
    for path in files:
        try:
            mark.update(bytes.fromhex(file_digest(path)))
        except OSError as error:
            raise DataError(
                f"cannot be read: {error.strerror}", where=path, fix=repair(path)
            ) from error
    return f"{name} (sha256 {mark.hexdigest()[:12]})"
