"""What a file is that was given as weights and is none: told by its first bytes."""

import json
import re
import zipfile
from pathlib import Path

from pipeline.errors import DataError

_LOOKED_AT = 512
_SHOWN = 4
_LFS = b"version https://git-lfs"
_ZIP = b"PK\x03\x04"
_PAGE = re.compile(rb"\s*(<!doctype|<html|<\?xml|<head|<body)", re.IGNORECASE)
_PACKED = {b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"BZh": "bzip2"}
_AGAIN = "Download the file itself again, and compare its size with that on the page."


def check(path: Path) -> None:
    """Raise DataError for what a download or a clone left instead of weights, by its own name.

    These are: nothing at all, a Git LFS pointer, a web page, a text, a packed archive, a zip of
    other files, the beginning of a torch archive.
    """
    with path.open("rb") as file:
        head = file.read(_LOOKED_AT)
    what, fix = _what(path, head)
    if what:
        raise DataError(f"not a readable checkpoint: {what}", where=path, fix=fix)


def _what(path: Path, head: bytes) -> tuple[str, str]:
    if not head:
        return "an empty file", _AGAIN
    if head.startswith(_LFS):
        size = re.search(rb"size (\d+)", head)
        of = f" of a file of {int(size[1]):,} bytes" if size else ""
        return (
            f"a Git LFS pointer{of}, not the weights",
            "Run `git lfs pull` where you cloned it, or download the file itself.",
        )
    if _PAGE.match(head):
        return "a web page (HTML) saved under this name", _AGAIN
    if packed := next((name for magic, name in _PACKED.items() if head.startswith(magic)), ""):
        return f"it is packed as {packed}", f"Unpack it ({packed}) first."
    if head.startswith(_ZIP) and not zipfile.is_zipfile(path):
        return (
            f"cut short: it begins as an archive of torch, and its end is missing after"
            f" {path.stat().st_size:,} bytes",
            _AGAIN,
        )
    if head.startswith(_ZIP) and (names := _foreign(path)):
        return (
            f"a zip archive of other files: {', '.join(names[:_SHOWN])}",
            "Unpack it, and give the file of weights inside.",
        )
    if text := _text(head):
        return f"a text that begins {json.dumps(text)}", _AGAIN
    return "", ""


def what_it_is(path: Path) -> str:
    """Return what was saved in the place of a file that should hold text; empty for other
    faults.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
    except OSError:
        return ""
    is_known = not head or head.startswith(_LFS) or _PAGE.match(head)
    return _what(path, head)[0] if is_known else ""


def _foreign(path: Path) -> list[str]:
    """Return names in a zip archive that torch did not write; [] for one of torch, or a damaged
    one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []
    is_torch = any(name.endswith(("/data.pkl", "/version", "constants.pkl")) for name in names)
    return [] if is_torch else [json.dumps(name)[1:-1] for name in names]


def _text(head: bytes) -> str:
    """Return the beginning of a text; empty for anything else."""
    if any(byte < 32 and byte not in b"\t\r\n" for byte in head) or any(b > 126 for b in head):
        return ""
    return head.decode("ascii").strip()[:40]
