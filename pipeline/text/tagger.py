"""Which part-of-speech tagger: NLTK's, when its data lie on this machine, else the small one of the
toolkit.

NLTK's data are looked for in the option, $NLTK_DATA and NLTK's usual places, in this order; nothing
is ever downloaded. The shipped tagger (`data/tagger`) was trained by `tools/train_tagger.py`. Only
the first letter of a tag matters to the
tag stage: J, V and N are kept.
"""

import gzip
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import DataError
from pipeline.text import assets, pickles
from pipeline.text.perceptron import Perceptron

Choice = Literal["auto", "nltk", "offline"]
SHIPPED = assets.DATA / "tagger" / "captions-1.json.gz"
_JSON, _PICKLE = (
    "averaged_perceptron_tagger_eng",
    "averaged_perceptron_tagger/averaged_perceptron_tagger.pickle",
)
_PARTS = ("weights", "tagdict", "classes")
_FIX = "Give another NLTK data folder, or choose `tagger: offline`."


@dataclass(frozen=True)
class TaggerSource:
    """A tagger that is there but not read yet. `files` decide its tags."""

    name: Literal["nltk", "offline"]
    files: list[Path]

    @property
    def version(self) -> str:
        """How manifests name it: which tagger, and a mark of its files."""
        what = (
            "NLTK averaged perceptron"
            if self.name == "nltk"
            else f"offline {self.files[0].name.split('.')[0]}"
        )
        return assets.version(what, self.files)

    def load(self) -> Perceptron:
        """Raises DataError if the files do not hold a tagger."""
        return _from_nltk(self.files) if self.name == "nltk" else _from_shipped(self.files[0])


def find(choice: Choice = "auto", nltk_data: Path | None = None) -> TaggerSource:
    """Return the tagger to use. auto: NLTK's if its data are found, else the shipped one.

    nltk_data: a folder that holds `taggers/`; given, it must hold NLTK's tagger. DataError if what
    is asked for is absent.
    """
    if choice == "offline":
        return TaggerSource("offline", [SHIPPED])
    places = [nltk_data] if nltk_data else nltk_places()
    for place in places:
        files = _nltk_files(place / "taggers")
        if files:
            return TaggerSource("nltk", files)
    if choice == "auto" and nltk_data is None:
        return TaggerSource("offline", [SHIPPED])
    raise DataError(
        f"NLTK's tagger is not there: no taggers/{_JSON} and no taggers/{_PICKLE}",
        where=" ".join(map(str, places)),
        fix=(
            "Give the folder that holds `taggers`, set NLTK_DATA, or choose `tagger: offline`."
            " Nothing is downloaded."
        ),
    )


def nltk_places() -> list[Path]:
    """Return where NLTK looks for its data on this machine: $NLTK_DATA first."""
    given = [Path(part) for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
    prefix = [Path(sys.prefix, *parts, "nltk_data") for parts in ((), ("share",), ("lib",))]
    system = [
        Path(root, "nltk_data")
        for root in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")
    ]
    return [*given, Path.home() / "nltk_data", *prefix, *system]


def _nltk_files(taggers: Path) -> list[Path]:
    parts = [taggers / _JSON / f"{_JSON}.{part}.json" for part in _PARTS]
    for files in (parts, [taggers / _PICKLE]):
        if all(path.is_file() for path in files):
            return files
    return []


def _from_nltk(files: list[Path]) -> Perceptron:
    if len(files) == 1:
        return _checked(pickles.read(files[0]), files[0])
    return _checked(tuple(_json(path) for path in files), files[0].parent)


def _from_shipped(path: Path) -> Perceptron:
    try:
        value = json.loads(gzip.decompress(path.read_bytes()))
        return _checked(tuple(value[part] for part in _PARTS), path)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot be read: {error}", where=path, fix=assets.repair(path)) from error


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read: {error}", where=path, fix=_FIX) from error


def _checked(value: object, where: Path) -> Perceptron:
    if not isinstance(value, tuple) or len(value) != len(_PARTS):
        raise DataError("holds no tagger (weights, tag dictionary, classes)", where=where, fix=_FIX)
    weights, known, labels = value
    try:
        if not all(
            isinstance(label, str) for label in [*labels, *known, *known.values(), *weights]
        ):
            raise TypeError("words, features and labels must be text")
        return Perceptron(weights, known, labels)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"holds no tagger: {error}", where=where, fix=_FIX) from error
