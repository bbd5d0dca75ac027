"""Stages, data sets, models and commands from folders of the user's, beside ours.

A folder of plugins looks like this, and a name is the name of its file as everywhere:

    stages/blur.py    datasets/films.py    models/<name>/model.py    commands/hello.py

`--plugins DIR` names it, or the environment: TVRKIT_PLUGINS, several with the separator of PATH.
The environment is how worker processes know of it. A stage there is the module
`pipeline.stages.blur`.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

VARIABLE = "TVRKIT_PLUGINS"
SUBFOLDERS = ("stages", "datasets", "commands", "models")
_PACKAGES = {
    "pipeline.stages": "stages",
    "pipeline.datasets": "datasets",
    "pipeline.commands": "commands",
    "models": "models",
}


def folders() -> list[Path]:
    """Return the folders of plugins, in the order given."""
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    return [Path(name) for name in named if name]


def add(folder: Path) -> None:
    """Use a folder in this process and in those that it starts."""
    known = [str(path) for path in folders()]
    path = str(folder.expanduser().resolve())
    if path not in known:
        os.environ[VARIABLE] = os.pathsep.join([*known, path])
    install()


def install() -> None:
    """Let imports find plugins; what we have ourselves is found before."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, _path: Sequence[str] | None, _target: object = None
    ) -> ModuleSpec | None:
        package = name.rpartition(".")[0]
        if package not in _PACKAGES:
            return None
        places = [str(folder / _PACKAGES[package]) for folder in folders()]
        return importlib.machinery.PathFinder.find_spec(name, places)
