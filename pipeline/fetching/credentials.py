"""User names and passwords for downloads: from the environment, or from a netrc file. Never logged,
never stored.

The environment serves one host; a netrc file serves many. Its entry `default` is not used: it would
give a password to any host that an address list names.
"""

import base64
import netrc
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pipeline.errors import ConfigError

USER, PASSWORD = "TVRKIT_FETCH_USER", "TVRKIT_FETCH_PASSWORD"  # noqa: S105  (names of variables)
LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})  # hosts on the way to which nobody can listen


@dataclass(frozen=True)
class Login:
    """Neither field is part of `repr`, so that no message or traceback can show them."""

    user: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        """The value of `Authorization` (Basic)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def login(server: str, netrc_file: Path | None = None) -> Login | None:
    """Return what to tell `server` (a host, or host:port), None if nothing is known.

    Of a netrc file the entry of that server counts, else the one of its host.
    Raises ConfigError for half a login or a netrc file that others can read.
    """
    user, password = os.environ.get(USER), os.environ.get(PASSWORD)
    if (user is None) != (password is None):
        missing = PASSWORD if password is None else USER
        raise ConfigError(
            f"{missing} is not set", where="environment", fix=f"Set both {USER} and {PASSWORD}."
        )
    if user is not None and password is not None:
        return Login(user, password)
    entries = _entries(netrc_file)
    entry = entries.get(server) or entries.get(_host(server))
    return Login(entry[0] or "", entry[2] or "") if entry else None


def check_servers(servers: Iterable[str], netrc_file: Path | None = None) -> None:
    """Check that every password goes to one server: another port is another server.

    Raises ConfigError if the password of the environment, or of an entry of the netrc file, would
    be sent to several, or if a login cannot be read.
    """
    names = sorted(set(servers))
    if USER in os.environ and len(names) > 1:
        raise ConfigError(
            f"the lists name {len(names)} servers ({', '.join(names[:3])}), and a password is"
            " meant for one",
            where=USER,
            fix=(
                f"Unset {USER} and {PASSWORD}, and write a netrc file with an entry per server"
                " (--netrc)."
            ),
        )
    for name in names[:1]:
        login(name, netrc_file)
    entries = {} if USER in os.environ else _entries(netrc_file)
    for host in sorted({_host(name) for name in names} & entries.keys()):
        served = [n for n in names if _host(n) == host and (n == host or n not in entries)]
        if len(served) > 1:
            raise ConfigError(
                f"the entry {host} would serve {len(served)} servers: {', '.join(served[:3])}",
                where="netrc",
                fix=f"Write an entry for each of them, such as: machine {served[-1]} login ...",
            )


def _server(parts: SplitResult) -> str:
    """As `Link.server`, for an address that is http."""
    host = parts.hostname or ""
    return host if parts.port in (None, 80) else f"{host}:{parts.port}"


def _host(server: str) -> str:
    name, colon, port = server.rpartition(":")
    return name if colon and port.isdigit() else server


def check_encrypted(urls: Iterable[str], netrc_file: Path | None = None) -> None:
    """ConfigError if a password that is known would be sent to http addresses, over which anybody
    can read it.
    """
    plain = [
        parts
        for parts in map(urlsplit, urls)
        if parts.scheme == "http" and parts.hostname not in LOCAL
    ]
    names = {_server(parts) for parts in plain}
    known = {name for name in names if login(name, netrc_file)}
    named = [parts for parts in plain if _server(parts) in known]
    if named:
        raise ConfigError(
            f"{len(named):,} addresses are http, over which anybody can read the password for"
            f" {named[0].hostname}",
            where="links",
            fix=(
                "Write https in the lists if the server has it; else --plain-password allows it "
                "(in a pipeline: --set fetch.plain_password=true)."
            ),
        )


def _entries(path: Path | None) -> dict[str, tuple[str, str, str]]:
    given = path or (Path(os.environ["NETRC"]) if os.environ.get("NETRC") else None)
    place = given or Path("~/.netrc").expanduser()
    try:
        if place.stat().st_mode & 0o077:
            raise ConfigError(
                "other users can read this file", where=place, fix=f"Run: chmod 600 {place}"
            )
        hosts = netrc.netrc(str(place)).hosts
    except FileNotFoundError:
        if given:
            raise ConfigError(
                "there is no such netrc file", where=place, fix="Check --netrc and NETRC."
            ) from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read: {error}", where=place, fix="Check the file and its permissions."
        ) from None
    except netrc.NetrcParseError as error:
        raise ConfigError(
            f"line {error.lineno} is not of the form `machine HOST login USER password PASSWORD`",
            where=place,
            fix="Correct that line.",
        ) from None
    return {name: entry for name, entry in hosts.items() if name != "default"}
