"""Lists of addresses to download: one per line, optionally followed by its SHA-256 or MD5.

As the published downloader reads them: lines without an address are passed over, equal addresses
count once, the rest is sorted. Read more carefully: an id that comes from an address is checked
before it names a file, and two addresses must not ask for the same file. Source:
docs/specs/preprocessing.md, section 1.6.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pipeline.datasets.base import Faults
from pipeline.datasets.parts.video_marks import VIDEO_SUFFIXES
from pipeline.errors import DataError

_LARGEST_LIST = 256 << 20
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_DIGESTS = {32: "md5", 64: "sha256"}  # by their number of hexadecimal digits
_HEX = re.compile(r"(?:sha256:|md5:)?([0-9A-Fa-f]{32}|[0-9A-Fa-f]{64})")


@dataclass(frozen=True)
class Link:
    """One file to download. checksum: hexadecimal SHA-256 (64 digits) or MD5 (32), "" if none is
    given.
    """

    id: str
    url: str
    suffix: str
    checksum: str = ""

    @property
    def shown(self) -> str:
        """The address as it may be printed: a query may hold a key, so it is left out."""
        return shown(self.url)

    @property
    def server(self) -> str:
        """Host, and its port where it is not the usual one: what a password is meant for."""
        parts = urlsplit(self.url)
        usual = {"http": 80, "https": 443}.get(parts.scheme)
        host = parts.hostname or ""
        return host if parts.port in (None, usual) else f"{host}:{parts.port}"


@dataclass(frozen=True)
class LinkList:
    links: list[Link]
    ignored: int  # lines that hold no address


def shown(url: str) -> str:
    """Return an address without its query and without a user."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}{'?...' if parts.query else ''}"


def checksum_kind(checksum: str) -> str:
    """Return the name of the algorithm, as hashlib knows it."""
    return _DIGESTS[len(checksum)]


def read_links(paths: Sequence[Path], in_folders: bool = False) -> LinkList:
    """Return the addresses of all lists, sorted. in_folders: ids get the last folder of the address
    in front.

    DataError for lists that cannot be read, and (all together) for addresses that cannot be used.
    """
    faults = Faults(", ".join(map(str, paths)))
    found: dict[str, Link] = {}
    taken: dict[str, str] = {}
    ignored = 0
    for path in paths:
        for where, line in _lines(path, faults):
            link = _link(line, where, in_folders, faults)
            if link is None:
                ignored += "://" not in line
                continue
            other = taken.setdefault(link.id, link.url)
            if other != link.url:
                faults.add(
                    "address whose file name another one has",
                    f"{link.shown} and {shown(other)} ({where})",
                )
            elif link.checksum or link.url not in found:
                found[link.url] = link
    if not found and not faults:
        faults.add("list without an address", "no line holds http:// or https://")
    faults.raise_if_any("Correct the list and run the same command again; nothing was downloaded.")
    return LinkList([found[url] for url in sorted(found)], ignored)


def _lines(path: Path, faults: Faults) -> Iterator[tuple[str, str]]:
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise DataError(
                "larger than 256 MB", where=path, fix="Give a text file with one address per line."
            )
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}",
            where=path,
            fix="Put it there, or name a text file with one address per line (--links).",
        ) from error
    for number, raw in enumerate(data.splitlines(), start=1):
        where = f"{path.name}:{number}"
        try:
            yield where, raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            faults.add("line that is not UTF-8", f"byte {raw[error.start]:#04x} ({where})")


def _link(line: str, where: str, in_folders: bool, faults: Faults) -> Link | None:
    if line.startswith("#"):
        return None
    words = line.split()
    urls = [word for word in words if _SCHEME.match(word) and "://" in word]
    if not urls:
        if "://" in line:
            faults.add("line that does not hold an address by itself", where)
        return None
    parts = _checked(urls[0], where, faults)
    if parts is None:
        return None
    checksum = next((match[1].lower() for word in words if (match := _HEX.fullmatch(word))), "")
    name = PurePosixPath(unquote(parts.path))
    item_id, suffix = name.stem, name.suffix.lower()
    if suffix not in VIDEO_SUFFIXES:
        faults.add(
            "address that does not end in the name of a video file", f"{shown(urls[0])} ({where})"
        )
        return None
    if not faults.check_id(item_id, where) or (
        in_folders and not faults.check_id(name.parent.name, where)
    ):
        return None
    url = parts._replace(path=quote(parts.path, safe="/%:@!$&'()*+,;=~-._"), fragment="").geturl()
    return Link(f"{name.parent.name}/{item_id}" if in_folders else item_id, url, suffix, checksum)


def _checked(url: str, where: str, faults: Faults) -> SplitResult | None:
    """Return the parts of an address that may be asked for. One that is not understood is not
    repeated in the message either: there may be a password in it.
    """
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port != 0
    except ValueError:
        faults.add("address that cannot be read", where)
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        faults.add("address that is not http or https", f"{parts.scheme[:20]}:... ({where})")
    elif parts.username is not None or (
        "//" in parts.path and "@" in parts.path
    ):  # or an address within an address
        faults.add("address with a user name in it (use the environment or a netrc file)", where)
    elif not url.isprintable() or not parts.netloc.isascii() or not parts.query.isascii():
        faults.add(
            "address with characters that must be percent-encoded", f"{shown(url)[:80]!r} ({where})"
        )
    else:
        return parts
    return None
