"""What the repository says of itself: the texts of code, configuration and pages, and the citations,
paths, modules and commands that they name.

Files are found by walking folders, so it works in a checkout and in an exported tree alike.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPECS = ROOT / "docs" / "specs"
_OURS = ("benchmarks", "docs", "models", "pipeline", "reference", "tests", "tools")
_TOP = ("cli.py", "pipelines.yaml", "Makefile", "Dockerfile", "README.md", "data/README.md")
_TOP += ("CHANGELOG.md", "CONTRIBUTING.md")
_KINDS = {".py", ".md", ".yaml"}

_NUMBER = r"\d+(?:\.\d+)*"
_NUMBERS = rf"{_NUMBER}(?:(?:, and |, | and | to ){_NUMBER})*"
_CITATION = re.compile(rf"docs/specs/([\w-]+\.md)(?:,? sections? ({_NUMBERS}))?")
_NEIGHBOUR = re.compile(rf"(?<![\w/-])([\w-]+\.md),? sections? ({_NUMBERS})")  # within docs/specs
_HEADING = re.compile(rf"^#+ ({_NUMBER})\.? ", re.MULTILINE)
_PATH = re.compile(rf"(?<![\w/.<{{*-])(?:{'|'.join(_OURS)})/[\w./-]*\w")
_FOREIGN = re.compile(
    r"[\w.-]+/[\w.-]+: (?:[\w./*-]+(?:, | and )?)+"
)  # owner/repository: its files
_OUTSIDE = re.compile(r"DESIGN|(?<![\w/])(?:\.\./)+shared\b|(?<![\w/.])shared/|(?<![\w.])/work/")
_CODE = re.compile(r"\[[A-Z]\d+\]|\([A-Z]\d+\)")  # of a specification, without its name
_NAMED_THREAD = re.compile(
    r"[\w.-]+/[\w.-]+,? (?:issues?|pull requests?) #?\d+(?:(?:, | and )\d+)*"
)
_THREAD = re.compile(r"\b[Ii]ssues? #?\d+")  # without its repository
_MODULE = re.compile(rf"-m ((?:{'|'.join(_OURS)})\.[\w.]*\w)")
_MEMBER = re.compile(r"`((?:\w+/)*\w+\.py)`: `([\w.]+)`")
_COMMAND = re.compile(r"(?<![\w/])cli\.py ([a-z][\w-]*)")
_RECIPE_OR_PIPELINE = re.compile(r"cli\.py (run|status|show) ([a-z][\w-]*)(?![\w/<{*-])")


@cache
def texts() -> dict[str, str]:
    """Path relative to the root -> text, for code, configuration and pages that are ours."""
    files = [ROOT / name for name in _TOP]
    for folder in _OURS:
        files += [p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in _KINDS]
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in files}


@cache
def prose(name: str) -> str:
    """The text of a file as one line: comments and strings that go on in the next line are
    joined.
    """
    text = re.sub(r"\n[ \t]*(?:# ?)*", " ", texts()[name])
    return re.sub(r"\s+", " ", re.sub(r'" f?"', "", text))


@cache
def sections(spec: str) -> frozenset[str]:
    """The numbers of the sections of a specification; none if there is no such file."""
    path = SPECS / spec
    return frozenset(_HEADING.findall(path.read_text(encoding="utf-8")) if path.is_file() else ())


def citations() -> Iterator[tuple[str, str, str]]:
    """(file, specification, section or "") of every citation."""
    for name in texts():
        found = _CITATION.findall(prose(name))
        if name.startswith("docs/specs/"):
            found += _NEIGHBOUR.findall(prose(name))
        for spec, numbers in found:
            for number in re.findall(_NUMBER, numbers) or [""]:
                yield name, spec, number


def paths() -> Iterator[tuple[str, str]]:
    """(file, path) of every path that begins with one of our folders."""
    for name in texts():
        for path in _PATH.findall(_FOREIGN.sub(" ", prose(name))):
            yield name, path


def members(page: str) -> Iterator[tuple[str, str]]:
    """(file, name) of every `file`: `name` on a page: a class, a function, or one inside it."""
    yield from _MEMBER.findall(prose(page))


def has_member(file: str, name: str) -> bool:
    """Whether a Python file defines `name`, with dots for what is inside a class."""
    inside: object = ast.parse(texts()[file])
    for part in name.split("."):
        inside = next((n for n in inside.body if getattr(n, "name", "") == part), None)
        if inside is None:
            return False
    return True


def modules() -> Iterator[tuple[str, str]]:
    """(file, module) of every `python -m MODULE` of ours."""
    for name in texts():
        for module in _MODULE.findall(prose(name)):
            yield name, module


def commands() -> Iterator[tuple[str, str]]:
    """(file, command) of every `cli.py COMMAND`."""
    for name in texts():
        for command in _COMMAND.findall(prose(name)):
            yield name, command


def named() -> Iterator[tuple[str, str, str]]:
    """(file, command, name) of every `cli.py run NAME` and the like outside tests."""
    for name in texts():
        if not name.startswith("tests/"):
            for command, what in _RECIPE_OR_PIPELINE.findall(prose(name)):
                yield name, command, what


def outside() -> Iterator[str]:
    """Every hint at something that a clone does not have, outside tests and tools."""
    for name in texts():
        if name.partition("/")[0] not in ("tests", "tools"):
            found = _OUTSIDE.findall(prose(name))
            found += _THREAD.findall(_NAMED_THREAD.sub(" ", prose(name)))
            if not name.startswith("docs/specs/"):
                found += _CODE.findall(prose(name))
            yield from (f"{name}: {word}" for word in found)
