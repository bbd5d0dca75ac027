"""Where an artefact really lies: the step folder of `adopt` holds a pointer, every store follows it
before it opens.

`adopted.json` = {"path": absolute folder, "format": "bigfile", "digest": sha256 of its files,
"bytes": {name: size}}.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from pipeline.core.files import atomic_write
from pipeline.errors import DataError

POINTER = "adopted.json"
_LARGEST = 64 << 10


def resolve(path: Path, format: str = "") -> Path:
    """Return the folder to read: `path` itself, or the one that the pointer in it names (checked:
    format, files, sizes).

    Raises DataError when the pointer is damaged, is of another format, or what it names has changed
    or gone.
    """
    path = Path(path)
    if not (path / POINTER).is_file():
        return path
    fields = _read(path / POINTER)
    if format and fields["format"] != format:
        raise DataError(
            f"this step adopted a {fields['format']}, not a {format}",
            where=path,
            fix="Give the later step an input of that kind.",
        )
    target = Path(fields["path"])
    for name, size in fields["bytes"].items():
        _check_size(path, target / name, size)
    return target


def point(out: Path, target: Path, format: str, digest: str, files: Iterable[str]) -> None:
    """Write the pointer to `target` in the step folder `out`, with the present sizes of the `files`
    it consists of.
    """
    sizes = {name: (target / name).stat().st_size for name in files}
    fields = {"path": str(target.resolve()), "format": format, "digest": digest, "bytes": sizes}
    atomic_write(out / POINTER, json.dumps(fields, indent=1) + "\n")


def _read(file: Path) -> dict:
    try:
        with file.open("rb") as opened:
            fields = json.loads(opened.read(_LARGEST))
    except ValueError as error:
        raise _damaged(file) from error
    kinds = {"path": str, "format": str, "digest": str, "bytes": dict}
    if not isinstance(fields, dict) or any(
        not isinstance(fields.get(k), t) for k, t in kinds.items()
    ):
        raise _damaged(file)
    if any(not isinstance(size, int) or "/" in name for name, size in fields["bytes"].items()):
        raise _damaged(file)
    return fields


def _damaged(file: Path) -> DataError:
    return DataError(
        "this is not a pointer file of the adopt step",
        where=file,
        fix="Run the adopt step again with --force (in a pipeline: --force STEP).",
    )


def _check_size(step: Path, file: Path, size: int) -> None:
    try:
        actual = file.stat().st_size
    except OSError as error:
        raise DataError(
            f"the adopted file {file} cannot be read: {error.strerror}",
            where=step,
            fix="Put it back, or run the adopt step again with its new place.",
        ) from error
    if actual != size:
        raise DataError(
            f"the adopted file {file} has {actual:,} bytes, it had {size:,} when it was checked",
            where=step,
            fix="Run the adopt step again: it checks the new content.",
        )
