"""A web server on 127.0.0.1, in the test process, that misbehaves on request: the first folder of a
path says how.
"""

import base64
import contextlib
import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

USER, SECRET = "someone", "pass:wörd"


class Web:
    """files: {last component of a path: bytes}. asked: (path, Range, Authorization) of every
    request, in order.
    """

    def __init__(self, files: dict[str, bytes], certificate: Path | None = None):
        self.files, self.asked, self.over = files, [], threading.Event()
        self.redirects: dict[str, str] = {}
        web = self

        class Handler(_Handler):
            site = web

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.root = f"{scheme}://{self.host}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def url(self, path: str) -> str:
        return f"{self.root}/{path}"

    def requests(self, path: str) -> int:
        return sum(asked[0] == f"/{path}" for asked in self.asked)

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def serving(files: dict[str, bytes], certificate: Path | None = None) -> Iterator[Web]:
    web = Web(files, certificate)
    try:
        yield web
    finally:
        web.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Web

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        self.site.asked.append(
            (self.path, self.headers.get("Range"), self.headers.get("Authorization"))
        )
        parts = self.path.partition("?")[0].strip("/").split("/")
        self.data = self.site.files.get(parts[-1])
        self.kind = parts[0]
        self.tag = f'"{hashlib.sha256(self.data or b"").hexdigest()[:8]}"'
        with contextlib.suppress(OSError):  # the other side hung up, as it should
            if self.path in self.site.redirects:
                self.answer(302, {"Location": self.site.redirects[self.path]})
            else:
                getattr(self, f"do_{self.kind.partition('-')[0]}", self.do_missing)()

    def answer(self, status: int, headers: dict[str, object], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def whole(self, keep: Callable[[bytes], bytes] = lambda data: data, **headers: object) -> None:
        """The file or the rest of it, with the right length, though `keep` may send less."""
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        same = self.headers.get("If-Range") in (None, self.tag)
        if wanted and same:
            rest = self.data[start:]
            span = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
            more = {"Content-Range": span, "Content-Length": len(rest), "ETag": self.tag}
            self.answer(206, more | headers, keep(rest))
        else:
            self.answer(
                200, {"Content-Length": len(self.data), "ETag": self.tag} | headers, keep(self.data)
            )

    def do_missing(self) -> None:
        self.answer(404, {})

    def do_plain(self) -> None:
        self.do_missing() if self.data is None else self.whole()

    def do_cut(self) -> None:
        self.whole(lambda data: data[: max(1, len(data) // 2)] if len(data) > 200 else data)

    def do_always(self) -> None:
        self.whole(lambda data: data[:3])

    def do_norange(self) -> None:
        first = len([a for a in self.site.asked if a[0] == self.path]) == 1
        self.answer(
            200,
            {"Content-Length": len(self.data), "ETag": self.tag},
            self.data[: 100 if first else None],
        )

    def do_stall(self) -> None:
        self.answer(200, {"Content-Length": len(self.data)}, self.data[:10])
        self.site.over.wait(30)

    def do_silent(self) -> None:
        self.site.over.wait(30)

    def do_letters(self) -> None:
        for letter in b"HTTP/1.1 200 OK\r\n" + b"x" * 1000:
            self.wfile.write(bytes([letter]))
            if self.site.over.wait(0.05):
                return

    def do_status(self) -> None:
        self.answer(int(self.path.split("/")[2]), {"Retry-After": 0})

    def do_busy(self) -> None:
        if len(self.site.asked) < 3:
            self.answer(503, {"Retry-After": 0})
        else:
            self.whole()

    def do_auth(self) -> None:
        expected = "Basic " + base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
        if self.headers.get("Authorization") == expected:
            self.whole()
        else:
            self.answer(401, {"WWW-Authenticate": 'Basic realm="films"'})

    def do_page(self) -> None:
        self.answer(
            200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>please log in</html>"
        )

    def do_nolength(self) -> None:
        self.answer(200, {"Content-Length": None}, self.data)

    def do_changing(self) -> None:
        """Another version of the file at every request, cut in the first."""
        number = len(self.site.asked)
        self.data = self.data + bytes([number])
        self.tag = f'"{number}"'
        self.whole(lambda data: data[:100] if number == 1 else data)

    def do_steps(self) -> None:
        self.whole(lambda data: data[: 2 << 20])

    def do_forgetful(self) -> None:
        """Breaks off late, and knows nothing of it at the next request."""
        if self.headers.get("Range"):
            self.answer(416, {})
        else:
            self.whole(lambda data: data[:-1])

    def do_liar(self) -> None:
        """Sends more than it announced."""
        self.answer(200, {"Content-Length": None, "Transfer-Encoding": "chunked"})
        while not self.site.over.is_set():
            self.wfile.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
