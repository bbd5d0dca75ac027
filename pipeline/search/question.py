"""What people ask: words, clips and pictures, each with a weight; from a command line or a line."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.datasets.parts.video_marks import VIDEO_SUFFIXES
from pipeline.errors import ConfigError, DataError

Kind = Literal["words", "video", "picture"]
PICTURE_SUFFIXES = frozenset(".jpg .jpeg .png .webp .bmp .tif .tiff .ppm".split())
_LONGEST = 10_000  # letters of a sentence; no model reads as many
_WEIGHT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?):(.+)", re.DOTALL)
_PATH = re.compile(r"(?:~|\.{1,2})?/")
_EXAMPLE = 'For example: search INDEX "a dog runs", or "2:a dog" + ./pool.jpg - "fruit".'


@dataclass(frozen=True)
class Part:
    """One thing that is asked for. value: a sentence, a path, or the id of a video. weight: below 0
    for what is not wanted.
    """

    kind: Kind
    value: str
    weight: float = 1.0


def parse_line(line: str) -> list[Part]:
    """Return the parts of a line; with quotes in it, as a shell would split it, else one
    sentence.
    """
    if '"' not in line:
        return parse([line])
    try:
        return parse(shlex.split(line))
    except ValueError as error:
        raise ConfigError(f"{error}".lower(), where=f"query {shown(line)}", fix=_EXAMPLE) from error


def parse_words(words: Sequence[str]) -> list[Part]:
    """Return the parts of a command line; of a single word with quotes in it as `parse_line`."""
    if len(words) == 1 and words[0].count('"') > 1:
        return parse_line(words[0])
    return parse(words)


def parse(tokens: Sequence[str]) -> list[Part]:
    """Return the parts of `"2:a dog" + ./pool.jpg - fruit`: words between signs belong together.

    A name of a file that is there is a clip or a picture. ConfigError for a sign without anything
    behind it or no words at all, DataError for a path that leads nowhere.
    """
    groups: list[tuple[int, list[str]]] = [(1, [])]
    for word in tokens:
        if word in ("+", "-"):
            groups.append((1 if word == "+" else -1, []))
        else:
            groups[-1][1].append(word)
    if len(groups) > 1 and not groups[0][1]:
        groups = groups[1:]  # a sign in front of everything
    many = len(groups) > 1
    return [_part(sign, " ".join(words).strip(), many) for sign, words in groups]


def video_part(value: str) -> Part:
    """Return a clip to look for: a file, or the id of a video that is known."""
    return Part("video", value)


def picture_part(path: Path) -> Part:
    """Return a picture to look for. DataError: there is none."""
    if not path.is_file():
        raise _nothing_there(str(path), "--image")
    return Part("picture", str(path))


def described(parts: Sequence[Part]) -> str:
    """Return what is asked, in one line as it may be typed."""
    if len(parts) == 1:
        return parts[0].value
    signs = [("- " if part.weight < 0 else "+ ") + _weighted(part) for part in parts]
    return " ".join(signs).removeprefix("+ ")


def shown(text: str, most: int = 80) -> str:
    """Return a foreign text for a message: short, without characters that a terminal obeys."""
    return ascii(text if len(text) <= most else text[:most] + "...")


def _weighted(part: Part) -> str:
    size = abs(part.weight)
    return part.value if size == 1 else f"{size:g}:{part.value}"


def _part(sign: int, text: str, many: bool) -> Part:
    weight = 1.0
    if many and (found := _WEIGHT.fullmatch(text)):
        weight, text = float(found[1]), found[2].strip()
    if not text:
        what = "a sign with nothing behind it" if many else "an empty query"
        raise ConfigError(what, where="search", fix=f"Write a sentence. {_EXAMPLE}")
    if not weight:
        raise ConfigError(
            f"the weight of {shown(text)} is 0", where="search", fix="Leave that part out."
        )
    return Part(_kind(text), _checked(text), sign * weight)


def _kind(text: str) -> Kind:
    suffix = Path(text).suffix.lower() if len(text) < 4096 else ""
    if suffix not in PICTURE_SUFFIXES and suffix not in VIDEO_SUFFIXES:
        return "words"
    try:
        is_there = Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        is_there = False
    if is_there:
        return "picture" if suffix in PICTURE_SUFFIXES else "video"
    if _PATH.match(text):
        raise _nothing_there(text, "search")
    return "words"


def _checked(text: str) -> str:
    if len(text) > _LONGEST:
        raise ConfigError(
            f"a query of {len(text):,} letters",
            where="search",
            fix=f"Write one sentence; {_LONGEST:,} letters are read at most.",
        )
    return text


def _nothing_there(path: str, where: str) -> DataError:
    return DataError(f"there is no file {shown(path)}", where=where, fix="Check the path.")
