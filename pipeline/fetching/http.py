"""Ask a web server for a file: http and https only, TLS verified, redirects followed with care, no
endless waits.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from urllib.parse import SplitResult, urljoin, urlsplit

from pipeline import __version__
from pipeline.errors import ItemError
from pipeline.fetching.credentials import LOCAL, Login
from pipeline.fetching.links import shown

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK = 256 << 10
_SLOWEST = 1024  # bytes that must come within the patience, else the server is stalling


class TransferError(Exception):
    """A transfer broke off; trying again may help. after: seconds that the server asks to wait."""

    def __init__(self, message: str, after: float = 0.0):
        super().__init__(message)
        self.after = after


@dataclass(frozen=True)
class Manners:
    """patience: seconds without (nearly) any data. plain_password: may be sent to http
    addresses.
    """

    patience: float = 30.0
    plain_password: bool = False


@dataclass
class Reply:
    """An answer whose body is still to be read."""

    status: int
    headers: Message
    url: str
    _response: http.client.HTTPResponse
    _patience: float

    @property
    def length(self) -> int | None:
        """Bytes of this body, None if the server does not say."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() else None

    @property
    def ends_itself(self) -> bool:
        """Whether the body says where it ends, so that a broken connection shows."""
        return self.length is not None or bool(self._response.chunked)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body. TransferError if the connection breaks or the server stalls."""
        since, window = time.monotonic(), 0
        while True:
            try:
                data = self._response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise TransferError(f"the connection broke: {_words(error)}") from error
            if not data:
                return
            yield data
            window += len(data)
            now = time.monotonic()
            if now - since > self._patience:
                if window < _SLOWEST:
                    raise TransferError(f"only {window} bytes in {now - since:.0f} s")
                since, window = now, 0


@contextlib.contextmanager
def get(
    url: str, headers: dict[str, str], login: Login | None, manners: Manners
) -> Iterator[Reply]:
    """The answer to a GET, after redirects. The login goes to the host of `url` and to no other.

    Raises TransferError; ItemError for an address or a redirect that must not be followed.
    """
    first = urlsplit(url)
    for _ in range(_MOST_REDIRECTS + 1):
        target = urlsplit(url)
        own = dict(headers)
        if login and may_know(target, first, manners):
            own["Authorization"] = login.header
        connection = _connection(target, manners)
        try:
            response = _ask(connection, target, own, manners)
            place = response.getheader("Location")
            if response.status in _REDIRECTS and place:
                url = _next(url, place)
                continue
            yield Reply(response.status, response.headers, url, response, manners.patience)
            return
        finally:
            connection.close()
    raise ItemError("io_error", f"more than {_MOST_REDIRECTS} redirects, the last to {shown(url)}")


def may_know(target: SplitResult, first: SplitResult, manners: Manners) -> bool:
    """Return whether a login for `first` may be told to `target`: the same server, or the same one
    over TLS.
    """
    one, other = _server(first), _server(target)
    if one != other and (one[0], one[1:], other[1:]) != (other[0], ("http", 80), ("https", 443)):
        return False
    if target.scheme == "http" and target.hostname not in LOCAL and not manners.plain_password:
        raise ItemError(
            "io_error",
            "the address is http, over which anybody can read a password (--plain-password"
            " allows it)",
        )
    return True


def _server(parts: SplitResult) -> tuple[str, str, int]:
    """Host, scheme and port of an address."""
    return (
        parts.hostname or "",
        parts.scheme,
        parts.port or (443 if parts.scheme == "https" else 80),
    )


def _next(url: str, place: str) -> str:
    try:
        target = urljoin(url, place)
        parts = urlsplit(target)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_web = False
    if not is_web:
        raise ItemError(
            "io_error",
            f"the server redirects to {place[:80]!r}, which is not http or https; refused",
        )
    if urlsplit(url).scheme == "https" and parts.scheme == "http":
        raise ItemError("io_error", f"the server redirects from https to {shown(target)}; refused")
    return target


def _connection(target: SplitResult, manners: Manners) -> http.client.HTTPConnection:
    host, port = target.hostname or "", target.port
    if target.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=manners.patience, context=context)
    return http.client.HTTPConnection(host, port, timeout=manners.patience)


def _ask(
    connection: http.client.HTTPConnection,
    target: SplitResult,
    headers: dict[str, str],
    manners: Manners,
) -> http.client.HTTPResponse:
    path = target._replace(scheme="", netloc="", fragment="").geturl() or "/"
    standing = {
        "User-Agent": f"tvrkit/{__version__}",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    try:
        connection.connect()
        with _deadline(connection.sock, 2 * manners.patience):
            connection.request("GET", path, headers=standing | headers)
            return connection.getresponse()
    except ssl.SSLCertVerificationError as error:
        raise ItemError(
            "io_error", f"the certificate of {target.hostname} is not valid: {_words(error)}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise TransferError(f"no answer from {target.hostname}: {_words(error)}") from error


@contextlib.contextmanager
def _deadline(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Break the connection after `seconds`: a server that sends its headers letter by letter
    never times out.

    TransferError then, whatever was read until there: headers that were cut off look like few
    headers.
    """
    over = threading.Event()

    def end() -> None:
        over.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if over.is_set():
            raise TransferError(f"no complete answer within {seconds:g} s")


def _words(error: Exception) -> str:
    return str(
        getattr(error, "verify_message", "")
        or getattr(error, "strerror", "")
        or error
        or type(error).__name__
    )
