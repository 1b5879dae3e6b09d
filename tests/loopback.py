"""A file server on loopback that can be told to misbehave."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Request(NamedTuple):
    """What was asked for: the path, and two headers (``None`` where they are missing)."""

    path: str
    range: str | None
    if_range: str | None


def etag_of(body: bytes) -> str:
    """The server's tag of a file."""
    return f'"{hashlib.sha256(body).hexdigest()[:8]}"'


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``."""

    def do_GET(self):
        server = self.server
        server.requests.append(Request(self.path, self.headers["Range"], self.headers["If-Range"]))
        if self.path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[self.path])
            self.end_headers()
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        body, habits = server.files[self.path], server.habits
        etag = etag_of(body)
        start = 0
        asked = self.headers["Range"]
        condition = self.headers["If-Range"]
        if asked and "no-range" not in habits and condition in (None, etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if "no-etag" not in habits:
            self.send_header("ETag", etag)
        if "no-length" not in habits:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        piece = body[start:]
        if "truncate" in habits:
            piece = piece[: habits["truncate"]]
        self.wfile.write(piece)

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Files, and how badly they are served.

    Attributes:
      files: content by path.
      redirects: the address to go to, by path.
      habits: ``no-range``, ``no-etag`` and ``no-length`` (any value) leave these out; ``truncate`` is the number of
        bytes after which an answer ends.
      requests: those that came.
      address: of the server, without a slash at the end.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.habits: dict[str, object] = {}
        self.requests: list[Request] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def loopback_server() -> Iterator[Server]:
    """A server without files, in a thread of its own while the block runs."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


__all__ = ["Request", "Server", "etag_of", "loopback_server"]
