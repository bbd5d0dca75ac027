"""The package, installed into an environment of its own, used from a folder of its own."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.search.systems import checkpoint
from tests.videos import Film, write

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([*PIP, *build], check=True, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; the packages it needs are those of this environment."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run(
        [*PIP, "--python", str(python), "install", "--no-deps", str(wheel)], check=True, cwd=folder
    )
    packages = next((folder / "env" / "lib").glob("python*/site-packages"))
    (packages / "shared.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def typed(
    home: Path, *arguments: str, program: str = "tvrkit", **more: str
) -> subprocess.CompletedProcess:
    """Run a program of the environment in its own folder, without the repository on the path."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(home / "env" / "bin" / program), *arguments],
        cwd=home,
        env=environment | more,
        capture_output=True,
        text=True,
    )


def test_the_wheel_holds_the_tree_below_its_own_name_and_names_what_it_needs(wheel) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith("METADATA"))
        said = archive.read(metadata).decode()

    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"tvrkit"}
    assert not any("__pycache__" in name for name in names)
    assert {"tvrkit/py.typed", "tvrkit/app/data/wordnet/LICENSE"} <= set(names)
    assert "Requires-Dist: torch>=" in said and "Provides-Extra: serve" in said
    assert "Requires-Dist: pytest" not in said


def test_four_commands_lead_from_videos_to_answers_in_a_fresh_environment(home) -> None:
    write(home / "films" / "a.mp4", Film(frames=6, fps=3, width=64, height=48))
    checkpoint(home / "model", "mean")

    said = typed(home, "--version")
    small = typed(home, "compress", "--in", "films", "--out", "small", "-j", "1")
    made = typed(home, "index", "--in", "small", "--checkpoint", "model", "--out", "idx", "-j", "1")
    found = typed(home, "search", "idx", "a dog runs", "--html", "answers.html", "--json")
    health = typed(home, "doctor")

    assert said.stdout.startswith("tvrkit, version 0.1.0")
    for result in (small, made, found, health):
        assert result.returncode == 0, result.stderr
    assert json.loads(found.stdout)["results"][0]["video"] == "a"
    assert (home / "answers.html").is_file()
    assert str(ROOT) not in (home / "small" / "_state" / "manifest.json").read_text()


def test_the_installed_program_calls_itself_by_its_name(home) -> None:
    wrong = typed(home, "search", "nothing", "a dog")
    usage = typed(home, "compress", "--help")
    code = "import tvrkit, pipeline; print(pipeline.__file__, tvrkit.load.__doc__[:10])"
    library = typed(home, "-c", code, program="python")

    assert wrong.returncode == 4 and "tvrkit index --in" in wrong.stderr
    assert "Usage: tvrkit compress" in usage.stdout
    assert "cli.py" not in wrong.stderr + usage.stdout
    assert str(home) in library.stdout and library.returncode == 0, library.stderr


def test_a_shell_completes_commands_options_and_pipelines(home) -> None:
    def completed(line: str) -> list[str]:
        asked = {"_TVRKIT_COMPLETE": "bash_complete", "COMP_WORDS": line}
        found = typed(home, **asked, COMP_CWORD=str(line.count(" ")))
        return [answer.partition(",")[2] for answer in found.stdout.splitlines()]

    script = typed(home, "completion", "bash").stdout

    assert "_TVRKIT_COMPLETE=bash_complete" in script and "tvrkit" in script
    assert completed("tvrkit compr") == ["compress"]
    assert "mine-drl_wti" in completed("tvrkit run mine-drl")
    assert "--fps" in completed("tvrkit compress --f")
