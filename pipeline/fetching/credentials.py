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
from urllib.parse import urlsplit

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


def login(host: str, netrc_file: Path | None = None) -> Login | None:
    """What to tell `host`, None if nothing is known. ConfigError for half a login or a netrc file
    others can read.
    """
    user, password = os.environ.get(USER), os.environ.get(PASSWORD)
    if (user is None) != (password is None):
        missing = PASSWORD if password is None else USER
        raise ConfigError(
            f"{missing} is not set", where="environment", fix=f"Set both {USER} and {PASSWORD}."
        )
    if user is not None and password is not None:
        return Login(user, password)
    entry = _entries(netrc_file).get(host)
    return Login(entry[0] or "", entry[2] or "") if entry else None


def check_hosts(hosts: Iterable[str], netrc_file: Path | None = None) -> None:
    """ConfigError if one password of the environment would be sent to several hosts, or a login
    cannot be read.
    """
    names = sorted(set(hosts))
    if USER in os.environ and len(names) > 1:
        raise ConfigError(
            f"the lists name {len(names)} hosts ({', '.join(names[:3])}), and a password is meant"
            " for one",
            where=USER,
            fix=(
                f"Unset {USER} and {PASSWORD}, and write a netrc file with an entry per host"
                " (--netrc)."
            ),
        )
    for name in names[:1]:
        login(name, netrc_file)


def check_encrypted(urls: Iterable[str], netrc_file: Path | None = None) -> None:
    """ConfigError if a password that is known would be sent to http addresses, over which anybody
    can read it.
    """
    plain = [
        parts
        for parts in map(urlsplit, urls)
        if parts.scheme == "http" and parts.hostname not in LOCAL
    ]
    known = {host for host in {parts.hostname or "" for parts in plain} if login(host, netrc_file)}
    named = [parts for parts in plain if parts.hostname in known]
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
