"""One https request, with the failures of the network put into words."""

import contextlib
import dataclasses
import http.client
import ipaddress
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

_TEXT_LIMIT = 1 << 16


@dataclasses.dataclass
class Connection:
    """An open answer.

    Attributes:
      start: where in the file the body begins; 0 unless the server resumed.
      size: bytes of the whole file, None if the server does not say.
      validators: what tells this state of the file from another: ``etag``, ``modified``.
      broken: set by ``chunks`` when the connection failed before the body ended.
    """

    start: int
    size: int | None
    validators: dict[str, str]
    body: http.client.HTTPResponse | None
    broken: bool = False

    def chunks(self, size: int) -> Iterator[bytes]:
        """The body in pieces; ends early, with ``broken`` set, where the connection fails."""
        while self.body is not None:
            try:
                chunk = self.body.read(size)
            except (http.client.HTTPException, ConnectionError, TimeoutError):
                self.broken = True
                return
            if not chunk:
                return
            yield chunk


@contextlib.contextmanager
def connect(
    url: str, resume: tuple[int, dict], timeout: float, allow_http_loopback: bool
) -> Iterator[Connection]:
    """Asks for ``url``, from ``resume`` = (bytes that are there, their validators) on if possible.

    The server resumes (206) only what is unchanged: validators and size are compared. One that does not
    know ranges, or has another file by now, sends the whole (``start`` is then 0).

    Raises:
      ValueError: the address is not https.
      FileNotFoundError: 404 or 410.
      ConnectionError: anything else that keeps an answer from coming.
    """
    there, known = resume
    headers = {"User-Agent": "jaxrec", "Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
        strong = [known[key] for key in ("etag", "modified") if not known.get(key, "W/").startswith("W/")]
        if strong:
            headers["If-Range"] = strong[0]
    try:
        response = _open(url, headers, timeout, allow_http_loopback)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and there:
                yield from _at_the_end(url, there, known, timeout, allow_http_loopback, error)
                return
            raise _refusal(url, error.code, error.reason) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"{url} cannot be reached ({reason}); check the network and the address"
        ) from error
    with response:
        connection = _understand(response)
        if connection.start and not _resumes(connection, there, known):
            response.close()
            with connect(url, (0, {}), timeout, allow_http_loopback) as fresh:
                yield fresh
            return
        yield connection


def read_text(url: str, timeout: float, allow_http_loopback: bool) -> str:
    """A small text file, at most 64 KiB of it; raises as ``connect`` does."""
    with connect(url, (0, {}), timeout, allow_http_loopback) as connection:
        return b"".join(connection.chunks(_TEXT_LIMIT))[:_TEXT_LIMIT].decode("utf-8", "replace")


def check_address(url: str, allow_http_loopback: bool) -> None:
    """Raises ValueError unless ``url`` is https, or http to this machine where that is allowed."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if not (allow_http_loopback and parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError(f"{url} is not an https address; jaxrec downloads over https only")


def _is_loopback(host: str | None) -> bool:
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to an address that could have been given in the first place."""

    def __init__(self, allow_http_loopback: bool):
        self.allow_http_loopback = allow_http_loopback

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        check_address(newurl, self.allow_http_loopback)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: dict[str, str], timeout: float, allow_http_loopback: bool):
    check_address(url, allow_http_loopback)
    handlers = [_CheckedRedirects(allow_http_loopback)]
    if _is_loopback(urllib.parse.urlsplit(url).hostname):
        handlers.append(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.build_opener(*handlers).open(request, timeout=timeout)


def _understand(response: http.client.HTTPResponse) -> Connection:
    """Reads size, place and validators from the headers."""
    headers = response.headers
    names = {"etag": "ETag", "modified": "Last-Modified"}
    validators = {key: headers[name] for key, name in names.items() if headers[name]}
    length = headers["Content-Length"]
    size = int(length) if length and length.isdigit() else None
    start = 0
    if response.status == 206:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", (headers["Content-Range"] or "").strip())
        start = int(place[1]) if place else -1
        size = int(place[2]) if place and place[2] != "*" else None
    return Connection(start, size, validators, response)


def _resumes(connection: Connection, there: int, known: dict) -> bool:
    """Whether a partial answer goes on where we stopped, in the same state of the file."""
    same = [
        connection.validators[key] == known[key]
        for key in connection.validators
        if known.get(key) is not None
    ]
    sized = connection.size is not None and connection.size == known.get("size")
    return connection.start == there and all(same) and (sized or (any(same) and connection.size is None))


def _at_the_end(url, there, known, timeout, allow_http_loopback, error) -> Iterator[Connection]:
    """After a 416: what is there is the whole file, or it is of no use and the whole is asked for."""
    place = re.fullmatch(r"bytes \*/(\d+)", (error.headers["Content-Range"] or "").strip())
    if place and int(place[1]) == there == known.get("size"):
        yield Connection(there, there, {}, None)
    else:
        with connect(url, (0, {}), timeout, allow_http_loopback) as fresh:
            yield fresh


def _refusal(url: str, code: int, reason: str) -> OSError:
    if code in (404, 410):
        return FileNotFoundError(
            f"{url} is not there ({code}); its publisher may have moved it, see the data set's own page"
        )
    return ConnectionError(f"{url} was refused ({code} {reason}); try again later")


__all__ = ["Connection", "check_address", "connect", "read_text"]
