"""What the build of the package adds: dependencies from requirements*.txt, and the commit.

A pin `name==1.2` of requirements.txt becomes `name>=1.2`: the pinned version is the tested one, and
an environment with a newer torch for its GPU must not lose it.
"""

import re
import subprocess
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_CORE = ("requirements.txt", "requirements-clip.txt")
_NOT_EXTRAS = ("clip", "dev")
_COMMIT = "COMMIT"


def needs(file: Path) -> list[str]:
    """Return the packages that a requirements file names, pins as lower bounds."""
    lines = (
        line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").split("\n")
    )
    return [line.replace("==", ">=") for line in lines if line and not line.startswith("-")]


def commit(root: Path) -> str:
    """Return the commit of a checkout, of the checkout that a source archive was made from, or
    "".
    """
    kept = root / _COMMIT
    if kept.is_file():
        return kept.read_text(encoding="utf-8").strip()
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


class CustomMetadataHook(MetadataHookInterface):
    """Dependencies and extras: requirements-NAME.txt is the extra NAME."""

    def update(self, metadata: dict) -> None:
        root = Path(self.root)
        metadata["dependencies"] = [need for name in _CORE for need in needs(root / name)]
        metadata["optional-dependencies"] = {
            name: needs(file)
            for file in sorted(root.glob("requirements-*.txt"))
            if (name := re.sub("^requirements-", "", file.stem)) not in _NOT_EXTRAS
        }


class CustomBuildHook(BuildHookInterface):
    """Put the commit into the archive, for `tvrkit --version`."""

    def initialize(self, _version: str, build_data: dict) -> None:
        found = commit(Path(self.root))
        if not found:
            return
        folder = Path(tempfile.mkdtemp())
        (folder / _COMMIT).write_text(found, encoding="utf-8")
        inside = f"tvrkit/app/{_COMMIT}" if self.target_name == "wheel" else _COMMIT
        build_data["force_include"][str(folder / _COMMIT)] = inside
