"""Check this machine: packages, codecs, GPU, disk, assets.

Each line says ok, or what is missing and which command mends it. Exit code 1 if something that is
needed is missing.
"""

import importlib
import importlib.metadata
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from pipeline import registry
from pipeline.errors import ComparisonFailed

_REQUIREMENTS = registry.ROOT / "requirements.txt"
_NONE = "none"


@click.command(help=__doc__)
def command() -> None:
    bad = 0
    for name, good, detail, needed in _checks():
        bad += needed and not good
        click.echo(f"{'ok' if good else 'MISSING' if needed else 'absent':<8} {name:<18} {detail}")
    if bad:
        raise ComparisonFailed(
            f"{bad} of the things tvrkit needs are missing",
            where="doctor",
            fix="See the lines above.",
        )


def _checks() -> Iterator[tuple[str, bool, str, bool]]:
    """Yield (what, is it there, detail or cure, is it needed)."""
    version = sys.version_info
    yield (
        "python",
        version >= (3, 11),
        f"{version.major}.{version.minor}.{version.micro} (3.11 or later)",
        True,
    )
    yield from _packages()
    yield from _codecs()
    yield from _ffmpeg()
    yield from _open_files()
    yield from _torch()
    free = shutil.disk_usage(Path.cwd()).free
    yield "disk", free > 5e9, f"{free / 1e9:,.0f} GB free in {Path.cwd()}", True
    for folder in ("wordnet", "stopwords", "tagger"):
        path = registry.ROOT / "data" / folder
        yield (
            f"data/{folder}",
            path.is_dir() and any(path.iterdir()),
            "shipped text assets",
            True,
        )


def _packages() -> Iterator[tuple[str, bool, str, bool]]:
    wrong, newer = [], []
    for line in _REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        name, _, pin = line.partition("#")[0].strip().partition("==")
        if not pin:
            continue
        found = _installed(name)
        if found == pin:
            continue
        is_newer = found != _NONE and _numbers(found) > _numbers(pin)
        (newer if is_newer else wrong).append(f"{name} {found} (tested: {pin})")
    told = "; ".join(wrong or newer)
    cure = f"{told}: {sys.executable} -m pip install -r {_REQUIREMENTS}"
    told = f"newer than tested: {told}" if newer else "as tested"
    yield "packages", not wrong, cure if wrong else told, True


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return _NONE


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _codecs() -> Iterator[tuple[str, bool, str, bool]]:
    av = importlib.import_module("av")
    decoders = [
        name
        for name in ("h264", "hevc", "vp9", "libdav1d", "mpeg4", "mpeg2video", "gif")
        if name in av.codecs_available
    ]
    yield "decoders", "h264" in decoders, ", ".join(decoders), True
    yield "encoder", "libx264" in av.codecs_available, "libx264 (in the av wheel)", True


def _ffmpeg() -> Iterator[tuple[str, bool, str, bool]]:
    path = shutil.which("ffmpeg") or importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    yield "ffmpeg", bool(path), f"{path} (only for compress --engine ffmpeg)", False


def _open_files() -> Iterator[tuple[str, bool, str, bool]]:
    from pipeline.video.container import OPEN_FILES

    there = [folder for folder in OPEN_FILES if Path(folder).is_dir()]
    cure = f"neither {' nor '.join(OPEN_FILES)}: mount -t proc proc /proc"
    yield "open files", bool(there), there[0] if there else cure, True


def _torch() -> Iterator[tuple[str, bool, str, bool]]:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        told = f"{error}: without it compress, frames and fetch work, models do not"
        yield "torch", False, told, True
        return
    yield "torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads", True
    gpu = torch.cuda.is_available()
    yield (
        "gpu",
        gpu,
        torch.cuda.get_device_name(0) if gpu else "none: training and features run on the CPU",
        False,
    )
