"""What the container, its requirements and continuous integration promise."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (line.split()[0], line.split(maxsplit=1)[1].strip())
        for line in text.splitlines()
        if line.strip()
    ]


def last(instruction: str) -> str:
    return [arguments for name, arguments in instructions() if name == instruction][-1]


def test_container_runs_as_a_fixed_user_that_is_not_root() -> None:
    assert last("USER") == "10001:10001"


def test_container_starts_the_command_line_below_an_init_without_a_shell() -> None:
    assert json.loads(last("ENTRYPOINT")) == ["tini", "--", "python", "cli.py"]
    assert json.loads(last("CMD")) == ["--help"]
    assert last("STOPSIGNAL") == "SIGTERM"
    assert json.loads(last("VOLUME")) == ["/data", "/out", "/cache"]


def test_container_is_built_in_two_stages_from_named_versions_and_fetches_no_url() -> None:
    bases = [arguments.split()[0] for name, arguments in instructions() if name == "FROM"]

    assert bases == ["python:3.11-slim-bookworm"] * 2
    assert "ADD" not in {name for name, _ in instructions()}
    assert not re.search(
        r"\b(curl|wget|git clone)\b", (ROOT / "Dockerfile").read_text(encoding="utf-8")
    )


def test_dockerfile_has_no_findings() -> None:
    search = f"{Path(sys.executable).parent}:{Path('/usr/local/bin')}"
    program = shutil.which("hadolint", path=search) or shutil.which("hadolint")
    if not program:
        pytest.skip("hadolint is not installed (requirements-dev.txt)")

    result = subprocess.run([program, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)

    assert (result.returncode, result.stdout) == (0, "")


def test_every_asset_that_ships_is_in_the_image() -> None:
    shipped = re.findall(
        r"^!(data/.+?)/?$", (ROOT / ".gitignore").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    copied = re.findall(
        r"^!(data/.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), flags=re.MULTILINE
    )

    assert sorted(shipped) == sorted(copied)


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "requirements-clip.txt",
        "requirements-dev.txt",
        "requirements-faiss.txt",
        "requirements-serve.txt",
    ],
)
def test_every_requirement_is_pinned(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").split("\n")
    wanted = [line for line in lines if line and not line.startswith("#")]

    assert wanted
    assert [
        line for line in wanted if not re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.+!]+(; .+)?", line)
    ] == []


def test_continuous_integration_can_be_started() -> None:
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
