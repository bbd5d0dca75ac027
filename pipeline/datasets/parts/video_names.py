"""One rule for the name by which a caption calls its video.

Tried in this order: the name as it stands (id, path below the folder, file name); the same in one
Unicode form and without case; without its video suffix, or with another; without the path of the
folder in front; as a number (1.0, 0001 and 1 are one). The first step that finds something decides.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pipeline.datasets.parts.video_marks import is_video_name

_NUMBER = re.compile(r"0*([0-9]+)(?:\.0+)?")
_FLOAT = re.compile(r"([0-9]+)\.0")
_ELSEWHERE = re.compile(r"(?:/|[A-Za-z]:/|[a-z][a-z0-9+.-]*://)")  # paths and addresses
_MOST_COMPARED = 20_000


class VideoNames:
    """Finds videos by any name a person may use. paths: {id: file below root}."""

    def __init__(self, root: Path, paths: dict[str, Path]):
        self._root, self._paths = root, paths

    def find(self, name: str) -> list[str]:
        """Return ids of the videos that a name may mean: one, several (it is ambiguous), or []."""
        for spelling in self._spellings(tidy(name)):
            for index, key in (
                (self._exact, spelling),
                (self._exact, _stem(spelling)),
                (self._folded, _fold(spelling)),
                (self._folded, _fold(_stem(spelling))),
            ):
                if found := index.get(key):
                    return found
        number = _NUMBER.fullmatch(_stem(tidy(name)))
        return self._numbers.get(int(number[1]), []) if number and len(number[1]) < 20 else []

    def nearest(self, name: str) -> str | None:
        """Return the video whose name is most like this one, if any is."""
        if len(self._paths) > _MOST_COMPARED:
            return None
        by_fold = {_fold(video_id): video_id for video_id in self._paths}
        found = difflib.get_close_matches(_fold(_stem(tidy(name))), by_fold, n=1, cutoff=0.75)
        return by_fold[found[0]] if found else None

    def _spellings(self, name: str) -> Iterator[str]:
        """Yield the name, and what is left of a longer path."""
        yield name
        if _ELSEWHERE.match(name):
            yield from self._ends(name)
            return
        parts = self._root.resolve().parts
        for n in range(1, len(parts)):  # data/mine/a.mp4 for the folder data/mine
            front = "/".join(parts[-n:]) + "/"
            if name.startswith(front):
                yield name.removeprefix(front)

    def _ends(self, name: str) -> Iterator[str]:
        """Yield what a whole path says below the folder: exactly, where it lies there; behind the
        name of the folder; else its longest end that is a video here.
        """
        root = self._root.resolve()
        for front in (root.as_posix(), self._root.absolute().as_posix()):
            if name.startswith(front + "/"):
                yield name.removeprefix(front + "/")
                return
        parts = name.split("/")
        if root.name in parts[:-1]:
            last = len(parts) - 1 - parts[-2::-1].index(root.name)
            yield "/".join(parts[last:])
            return
        yield from ("/".join(parts[n:]) for n in range(1, len(parts)))

    @cached_property
    def _exact(self) -> dict[str, list[str]]:
        """Ids by id and path, which nobody else has; else by file name and stem."""
        exact: dict[str, list[str]] = {}
        names: dict[str, dict[str, None]] = {}
        for video_id, path in self._paths.items():
            exact[video_id] = exact[path.relative_to(self._root).as_posix()] = [video_id]
            for name in (path.name, path.stem if is_video_name(path.name) else path.name):
                names.setdefault(name, {})[video_id] = None
        return {name: list(ids) for name, ids in names.items()} | exact

    @cached_property
    def _folded(self) -> dict[str, list[str]]:
        folded: dict[str, dict[str, None]] = {}
        for name, ids in self._exact.items():
            folded.setdefault(_fold(name), {}).update(dict.fromkeys(ids))
        return {name: list(ids) for name, ids in folded.items()}

    @cached_property
    def _numbers(self) -> dict[int, list[str]]:
        numbers: dict[int, dict[str, None]] = {}
        for name, ids in self._exact.items():
            if name.isascii() and name.isdigit() and len(name) < 20:
                numbers.setdefault(int(name), {}).update(dict.fromkeys(ids))
        return {number: list(ids) for number, ids in numbers.items()}


def tidy(name: str) -> str:
    """Return a name with plain slashes and without `./` in front."""
    return name.replace("\\", "/").removeprefix("./")


def missing_id(name: str) -> str | None:
    """Return the id of a video that is not there: its name without video suffix, a path elsewhere
    without folders. None for a name that no file below a folder can have.
    """
    tidied = tidy(name)
    if _ELSEWHERE.match(tidied):
        tidied = tidied.rpartition("/")[2]
    if any(part in ("", ".", "..") for part in tidied.split("/")) or not tidied.isprintable():
        return None
    number = _FLOAT.fullmatch(tidied)  # pandas makes 1.0 of the video 1
    return number[1] if number else _stem(tidied)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] if is_video_name(name) else name


def _fold(name: str) -> str:
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).casefold()
