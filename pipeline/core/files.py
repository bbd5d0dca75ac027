"""Files that are either whole or absent, names on disk that no id can abuse, digests that are
computed once.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from pipeline.errors import DataError

TEMPORARY = ".tmp-"
_LONGEST_NAME = 200


@contextlib.contextmanager
def atomic_path(path: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path in the same folder; when the block ends well it is fsynced and renamed
    to `path`.

    If the block raises, nothing is left. `suffix` for writers that look at the extension (".mp4").
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}{suffix}"
    try:
        yield temporary
        commit_file(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def commit_file(temporary: Path, path: Path) -> None:
    """fsync `temporary`, rename it to `path`, fsync the folder."""
    fd = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a whole file atomically and durably."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a second name of the file `source`, or a copy where the disk has no hard links.

    `target` is whole or absent; its folder is made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return  # renaming a name onto another name of the same file would leave both
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP):
                raise
            shutil.copyfile(source, temporary)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed run left behind. Call under the lock of `folder`; its parts (`_parts`)
    have locks of their own.
    """
    if folder.exists():
        for path in folder.rglob(f"{TEMPORARY}*"):
            if "_parts" not in path.relative_to(folder).parts:
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    path.unlink()


def expect_no_links(folder: Path) -> None:
    """DataError if a link lies where a step would write in place: what it leads to is not ours.

    A work folder that was received may hold one. Links to where results are to lie are fine: whole
    files take the place of a link, and a folder may be elsewhere.
    """
    state = folder / "_state"
    places = [state, *(folder / name for name in ("_new", "_previous", "metrics.jsonl"))]
    places += [*folder.glob("*.partial"), *(state.iterdir() if state.is_dir() else [])]
    for path in places:
        if path.is_symlink():
            raise DataError(
                f"a link to {str(path.readlink())!r} lies where the step keeps a file of its own",
                where=path,
                fix="Remove the link, or choose another output folder. Nothing was written.",
            )


def open_no_link(path: Path, flags: int) -> int:
    """Return a descriptor of `path`, created if it is missing. DataError if a link lies there."""
    try:
        return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise DataError(
            "a link lies where the step keeps a file of its own",
            where=path,
            fix="Remove the link, or choose another output folder. Nothing was written.",
        ) from None


def disk_name(item_id: str, suffix: str = "") -> str:
    """Return the relative path of an id below an output folder: each part percent-encoded, hashed
    beyond 200 bytes.

    `/` separates folders; "", "." and ".." and a leading "_state" can never come out. Injective for
    distinct ids.
    """
    parts = item_id.split("/")
    encoded = [_safe_part(part) for part in parts[:-1]] + [_safe_part(parts[-1], suffix)]
    return "/".join(encoded)


def _safe_part(part: str, suffix: str = "") -> str:
    raw = os.fsencode(part)
    name = quote(raw, safe="@+")
    if part in ("", ".", ".."):
        name = "%" + (name.replace(".", "%2E")[1:] or "00")
    elif name.startswith((TEMPORARY, "_")):
        name = f"%{raw[0]:02X}{name[1:]}"
    if len(name) + len(suffix) > _LONGEST_NAME:
        name = f"{name[:100].rpartition('%')[0] or name[:100]}~{hashlib.sha256(raw).hexdigest()}"
    return name + suffix


def json_lines(data: bytes) -> list:
    """Return the values of whole lines of JSON, in order; torn or foreign lines are left out."""
    whole = data[: data.rfind(b"\n") + 1].splitlines()
    try:
        return json.loads(b"[" + b",".join(whole) + b"]")  # one call: twice as fast as one per line
    except ValueError:
        return [value for line in whole if (value := _value(line)) is not None]


def _value(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def file_digest(path: Path) -> str:
    """sha256 hex of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def written(path: Path) -> dict:
    """Return {"bytes", "sha256"} of a file just written: the value of `Outcome.outputs`."""
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


class DigestCache:
    """sha256 of files, remembered by (size, mtime_ns, ctime_ns, inode) so that unchanged files are
    not read again.

    The time alone is never trusted: another digest means changed, another time only means look
    again.
    """

    def __init__(self, path: Path | None):
        """path: where they are kept; None: only for the life of this object."""
        self._path = path
        self._known: dict[str, list] = {}
        self._new: dict[str, list] = {}
        if path is None:
            return
        with contextlib.suppress(FileNotFoundError):
            for name, *entry in json_lines(path.read_bytes()):
                self._known[name] = entry

    def __call__(self, path: Path) -> str:
        """Return the digest of `path`. Raises OSError if it cannot be read."""
        name = str(path)
        stat = os.stat(name)  # noqa: PTH116  (a Path per file doubles the time)
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        entry = self._known.get(name)
        if entry and entry[:4] == mark:
            return entry[4]
        value = file_digest(path)
        self._known[name] = self._new[name] = [*mark, value]
        return value

    def save(self) -> None:
        """Append what is new."""
        if self._new and self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(open_no_link(self._path, os.O_WRONLY | os.O_APPEND), "ab") as file:
                file.write(
                    b"".join(json.dumps([k, *v]).encode() + b"\n" for k, v in self._new.items())
                )
            self._new.clear()
