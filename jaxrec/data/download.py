"""Fetching one file over https: resumable, checked, atomic, and safe beside another process.

A download is written to ``<name>.part`` and renamed when it is whole and its checksum is right, so a file
under its own name is always complete. What was learnt of it lies beside it: ``<name>.part.json`` (address,
size and validators of the file being fetched, for resuming), ``<name>.sha256`` (its hash, kept from the
first download on) and ``<name>.lock``. Where the publisher gives an MD5, that decides; elsewhere there is
nothing to compare the first download with, and its SHA-256 is what later ones are held to.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxrec.data.transfer import Connection, connect, read_text

try:
    import fcntl
except ImportError:  # Windows: downloads are then not locked against another process
    fcntl = None

Progress = Callable[[int, int | None], None]
"""Called with (bytes there, bytes in all or None if unknown) as a download goes on."""

CHUNK = 1 << 20


def fetch(
    url: str,
    path: str | os.PathLike,
    *,
    md5_url: str | None = None,
    progress: Progress | None = None,
    attempts: int = 4,
    timeout: float = 60.0,
    allow_http_loopback: bool = False,
) -> Path:
    """Makes sure that ``path`` holds the file at ``url``; a file that is there is checked, not fetched.

    Args:
      url: an https address.
      path: where the file goes; missing folders are made.
      md5_url: address of the publisher's MD5 for the file, if there is one.
      progress: told how far the download is.
      attempts: how often a broken transfer is taken up again within this call.
      timeout: seconds without a byte after which a connection counts as broken.
      allow_http_loopback: also accept http to this machine itself (for tests).

    Returns:
      ``path``.

    Raises:
      ValueError: the address is not https, or a checksum differs.
      FileNotFoundError: the server has no such file.
      ConnectionError: no network, a refusing server, or a transfer that keeps breaking (what has come is
        kept and resumed by the next call).
      OSError: the disk is full or not writable.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(path.name + ".lock")):
        if path.is_file():
            _check_record(path, path)
            return path
        part = path.with_name(path.name + ".part")
        with _disk_errors(path):
            for attempt in range(1, attempts + 1):
                with connect(url, _resume_point(part, url), timeout, allow_http_loopback) as connection:
                    missing = _receive(connection, part, url, progress)
                if not missing:
                    break
                if attempt == attempts:
                    raise ConnectionError(
                        f"{url} broke off {attempts} times, the last time {missing} bytes before the end; "
                        "what can be resumed is kept, run the same again"
                    )
        if md5_url is not None:
            _check_published(part, url, md5_url, timeout, allow_http_loopback)
        _check_record(part, path)
        os.replace(part, path)
        _validators_path(part).unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on the file ``path``; a second process waits. Freed even if we are killed."""
    if fcntl is None:
        yield
        return
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def file_hash(path: Path, algorithm: str) -> str:
    """Hex digest of a file, read in chunks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


def _validators_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _resume_point(part: Path, url: str) -> tuple[int, dict]:
    """(bytes that are there, what the server said of the file); (0, {}) if there is nothing to go on from."""
    try:
        known = json.loads(_validators_path(part).read_text(encoding="utf-8"))
        size = part.stat().st_size
    except (OSError, ValueError):
        return 0, {}
    usable = isinstance(known, dict) and known.get("url") == url and size > 0
    return (size, known) if usable else (0, {})


def _receive(connection: Connection, part: Path, url: str, progress: Progress | None) -> int | str:
    """Appends the body to ``part``, or starts it anew; returns the bytes missing at its end, 0 if none."""
    if connection.start == 0:
        part.unlink(missing_ok=True)
        known = {"url": url, "size": connection.size, **connection.validators}
        _validators_path(part).write_text(json.dumps(known), encoding="utf-8")
    done, total = connection.start, connection.size
    if total is not None and shutil.disk_usage(part.parent).free < total - done:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
    with part.open("ab") as handle:
        for chunk in connection.chunks(CHUNK):
            handle.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
        handle.flush()
        os.fsync(handle.fileno())
    if total is not None and done > total:
        part.unlink()
        raise ConnectionError(f"{url} sent {done} bytes where it announced {total}; run the same again")
    if total is None and connection.broken:
        return "an unknown number of"
    return 0 if total is None else total - done


def _check_published(part: Path, url: str, md5_url: str, timeout: float, allow_http_loopback: bool) -> None:
    """Compares with the publisher's MD5; removes the download and raises ValueError if it differs."""
    try:
        text = read_text(md5_url, timeout, allow_http_loopback)
    except FileNotFoundError:
        warnings.warn(f"{md5_url} is gone, so {url} could not be checked against it", stacklevel=3)
        return
    found = re.findall(r"\b[0-9a-fA-F]{32}\b", text)
    if len(found) != 1:
        raise ValueError(
            f"{md5_url} should hold one MD5 and holds {len(found)}: {text[:80]!r}; try again later"
        )
    actual = file_hash(part, "md5")
    if actual != found[0].lower():
        part.unlink()
        raise ValueError(
            f"{url} has the MD5 {actual}, its publisher says {found[0].lower()}; the download was "
            "damaged and is removed, run the same again"
        )


def _check_record(file: Path, path: Path) -> None:
    """Holds ``file`` to the SHA-256 kept for ``path``; keeps it if there is none yet."""
    record = path.with_name(path.name + ".sha256")
    actual = file_hash(file, "sha256")
    if not record.is_file():
        record.write_text(f"{actual}  {path.name}\n", encoding="utf-8")
        return
    kept = record.read_text(encoding="utf-8").split()
    if kept[:1] != [actual]:
        if file != path:
            file.unlink()
        raise ValueError(
            f"{path} has the SHA-256 {actual}, and {kept[0] if kept else 'nothing'} was kept from its first "
            f"download; if the publisher changed it, remove {path.name} and {record.name} there and run again"
        )


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Says in one sentence that the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"no room left on the disk for {path.name}; free some space or choose another cache folder "
            "(cache=..., or the environment variable JAXREC_CACHE)",
            str(path),
        ) from error


__all__ = ["Progress", "fetch", "file_hash", "locked"]
