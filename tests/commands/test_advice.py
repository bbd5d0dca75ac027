"""Every command and option that a message advises exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from cli import cli
from pipeline import registry

ROOT = Path(__file__).resolve().parents[2]
STAGES, COMMANDS = registry.names("stage"), registry.names("command")
FOREIGN = ("torchrun", "pip ", "ffmpeg", "tensorboard", "ulimit")  # programs that are not ours
FILES = [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("models/**/*.py"), ROOT / "cli.py"]


def advice(tree: ast.AST) -> list[str]:
    """The texts of `fix=` of a module, with X for what is put in."""
    given = [
        word.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for word in call.keywords
        if word.arg == "fix"
    ]
    constants = [  # `_START_AGAIN = "..."`
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.JoinedStr)
    ]
    return [text for node in [*given, *constants] for text in texts(node)]


def texts(node: ast.AST) -> list[str]:
    if isinstance(node, ast.JoinedStr):
        return ["".join(p.value if isinstance(p, ast.Constant) else "X" for p in node.values)]
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    return [text for child in ast.iter_child_nodes(node) for text in texts(child)]


@cache
def options(command: str) -> frozenset[str]:
    params = [*cli.params, *cli.get_command(None, command).params]
    return frozenset(o for p in params for o in (*p.opts, *p.secondary_opts)) | {"--help"}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports() -> dict[str, set[str]]:
    """Of every module of ours the modules of ours that it imports, inside functions too."""
    found = {}
    for path in FILES:
        named = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                named |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        found[module_of(path)] = named
    return {name: named & found.keys() for name, named in found.items()}


@cache
def loaded_by(command: str) -> frozenset[str]:
    """The modules that a command or stage may load."""
    kind = "stages" if command in STAGES else "commands"
    seen, pending = set(), [f"pipeline.{kind}.{command.replace('-', '_')}", "cli"]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += imports().get(name, ())
    return frozenset(seen)


def printed_by(path: Path) -> list[str]:
    """The commands that may print a message of this file."""
    if path.parent.name == "stages":
        return [path.stem]
    if path.parent.name == "commands" and path.stem.replace("_", "-") in COMMANDS:
        return [path.stem.replace("_", "-")]
    return [name for name in [*STAGES, *COMMANDS] if module_of(path) in loaded_by(name)]


def wrong(path: Path) -> list[str]:
    found = []
    for text in advice(ast.parse(path.read_text())):
        for match in re.finditer(r"cli\.py ([a-z][a-z0-9-]*)", text):
            if match[1] not in [*STAGES, *COMMANDS]:
                found.append(f"{match[1]} in {text!r}")
        for match in re.finditer(r"(?<![\w-])--[a-z][a-z0-9-]+", text):
            before = text[: match.start()]
            if any(word in before for word in FOREIGN):
                continue
            named = re.findall(r"cli\.py ([a-z][a-z0-9-]*)[^()`]*$", before)
            asked = named[-1:] or (["run"] if "in a pipeline" in before else printed_by(path))
            if not any(match[0] in options(name) for name in asked if name != "X"):
                found.append(f"{match[0]} in {text!r}")
    return found


def test_every_command_and_option_that_is_advised_exists() -> None:
    assert {str(p.relative_to(ROOT)): found for p in FILES if (found := wrong(p))} == {}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_can_be_forced_and_told_that_removals_are_meant(stage: str) -> None:
    assert options(stage) >= {"--force", "--allow-removals", "--retry-failed"}
    assert options("run") >= {"--force", "--allow-removals"}
