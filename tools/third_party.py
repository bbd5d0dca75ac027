"""Write docs/third-party.md: every package that an image holds, with its licence, and the label of
the image that follows from them.

    .venv/bin/python tools/third_party.py

Read from the metadata of what is installed; where that names none, from the table below.
"""

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "third-party.md"
_FILES = ("requirements.txt", "requirements-clip.txt")  # what the Dockerfile installs
_SAID = {  # free words of metadata -> SPDX
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
}
_CLASSIFIED = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
_BY_NAME = {  # metadata says nothing, or too little
    "openai-clip": "MIT",  # of the repository openai/CLIP
    "matplotlib": "LicenseRef-matplotlib",  # its own, after that of Python
}
_INSIDE = {  # what wheels bring besides their own code
    "av": "GPL-2.0-or-later AND LGPL-3.0-or-later",  # libx264 and libx265; FFmpeg
    "imageio-ffmpeg": "GPL-3.0-or-later",  # the program ffmpeg
}
_SHIPPED = {"WordNet tables (data/wordnet)": "WordNet", "tvrkit": "Apache-2.0"}
_SPDX = {"WordNet": "LicenseRef-WordNet"}
_HEAD = """# Third-party notice

Made by `python tools/third_party.py` from the metadata of what an image installs; a test compares.
What these licences ask of those who pass an image on: [licences.md](licences.md). The text of each
licence is in the `dist-info` folder of its package.

| package | version | licence | and inside |
|---|---|---|---|
"""


def page() -> str:
    """Return the notice as Markdown."""
    rows = [
        f"| {name} | {version or 'as resolved'} | {licence} | {_INSIDE.get(name, '')} |"
        for name, version, licence in packages()
    ]
    rows += [f"| {name} | | {licence} | |" for name, licence in _SHIPPED.items()]
    return _HEAD + "\n".join(rows) + f"\n\nLabel of an image: `{label()}`\n"


def label() -> str:
    """Return the SPDX expression of an image: every licence in it, once."""
    found = [licence for _, _, licence in packages()]
    found += [*_INSIDE.values(), *(_SPDX.get(x, x) for x in _SHIPPED.values())]
    parts: set[str] = set()
    for expression in found:
        parts |= {f"({part})" if " OR " in part else part for part in expression.split(" AND ")}
    return " AND ".join(sorted(parts))


def packages() -> Iterator[tuple[str, str, str]]:
    """Yield (name, pinned version or "", licence), sorted, with what they need in turn."""
    pins = {}
    for file in _FILES:
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
            name, _, version = line.partition("#")[0].strip().partition("==")
            if name:
                pins[canonicalize_name(name)] = version
    found, waiting = {}, list(pins)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        installed = importlib.metadata.distribution(name)
        found[name] = _licence(name, installed.metadata)
        waiting += _needs(installed)
    for name in sorted(found):
        yield name, pins.get(name, ""), found[name]


def _needs(installed: importlib.metadata.Distribution) -> list[str]:
    needs = [Requirement(text) for text in installed.requires or []]
    return [
        canonicalize_name(need.name)
        for need in needs
        if need.marker is None or need.marker.evaluate({"extra": ""})
        if not need.name.startswith("nvidia-") and need.name != "triton"  # of CUDA builds
        if not need.name.startswith("cuda-")
    ]


def _licence(name: str, metadata: importlib.metadata.PackageMetadata) -> str:
    if name in _BY_NAME:
        return _BY_NAME[name]
    if expression := metadata.get("License-Expression"):
        return expression
    words = (metadata.get("License") or "").strip()
    if words and "\n" not in words and words != "UNKNOWN":
        return _SAID.get(words, words)
    for classifier in metadata.get_all("Classifier") or []:
        last = classifier.rpartition(" :: ")[2]
        if classifier.startswith("License") and last in _CLASSIFIED:
            return _CLASSIFIED[last]
    raise SystemExit(f"{name}: no licence in its metadata; look it up and add it to {__file__}")


def dockerfile_label() -> str:
    """Return the licences that the Dockerfile's label names."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    return re.search(r'image\.licenses="([^"]*)"', text)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    file = ROOT / "Dockerfile"
    text = file.read_text(encoding="utf-8").replace(dockerfile_label(), label())
    file.write_text(text, encoding="utf-8")
    print(f"{PAGE}: {len(list(packages()))} packages; label: {label()}")
