"""Writing files: errors in one sentence, JSON that is never half there, one training at a time in a directory."""

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrec.devices import processes

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

LOCK = "training.lock"


@contextlib.contextmanager
def writing(place: Path, *, instead: str = "choose another workdir") -> Iterator[None]:
    """Turns a failure to write into one sentence with the place and what to do.

    Nothing else belongs into the block: an error of a terminal, or of the data read, would be told as one of the place.

    Args:
      place: directory or file that is written.
      instead: what to do besides freeing space.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno,
            f"cannot write to {place}: {reason}; free space or {instead} (what was saved before is kept)",
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically: the file is the old one or the new one, never half of it. Only process 0 does."""
    if not processes.is_main():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


@contextlib.contextmanager
def training_alone(workdir: Path) -> Iterator[None]:
    """Keeps other trainings out of a directory, which is made if it is not there, while the block runs.

    Two at once would remove each other's checkpoints in the making. Process 0 of a run holds a lock, which the system
    frees when the process ends, in whatever way. Where files cannot be locked (some network disks) nobody is kept out.

    Raises:
      OSError: another training is at work there, or it cannot be written to.
    """
    held: list[int] = []
    try:
        processes.on_main(lambda: held.append(_lock(workdir)))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def _lock(workdir: Path) -> int:
    """An open, locked file: it is locked until it is closed."""
    with writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(workdir / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 200).decode(errors="replace").strip()
        os.close(descriptor)
        raise OSError(
            errno.EWOULDBLOCK,
            f"another training is at work in {workdir} ({holder or 'an unknown process'}); wait for its end, or"
            " choose another workdir (several processes that train one model are told of each other by --distributed)",
        ) from error
    except OSError:
        pass  # this file system knows no locks
    with contextlib.suppress(OSError):  # a full disk: the lock counts, not the name in it
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


__all__ = ["LOCK", "training_alone", "write_json", "writing"]
