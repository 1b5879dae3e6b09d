"""A log as a directory: plain .npy arrays, arrow IPC files for ids and metadata, a JSON header.

It opens at once whatever its size, because arrays are mapped into memory and ids are read on first
use. There is no pickle in it. Writing goes to a temporary sibling that is renamed at the end, so a
half-written log is never opened.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxrec.data.identifiers import IdMap
from jaxrec.data.items import ItemMetadata

if TYPE_CHECKING:
    from jaxrec.data.interactions import Interactions

FORMAT = "jaxrec-interactions"
FORMAT_VERSION = 1
HEADER = "header.json"


def save(log: "Interactions", directory: str | Path) -> Path:
    """Writes ``log`` into ``directory``, replacing a log that is there; returns the path.

    Raises FileExistsError if the directory holds something other than a saved log, and OSError (with
    the path in its text) where nothing can be written.
    """
    target = Path(directory)
    check_replaceable(target)
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "name": log.name,
        "users": log.num_users,
        "items": log.num_items,
        "interactions": log.num_interactions,
        "fingerprint": log.fingerprint(),
        "first_user": log.users.first,
        "first_item": log.item_ids.first,
        "times": log.times is not None,
        "metadata": log.metadata is not None,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        _write(log, partial, header)
        partial.chmod(0o777 & ~_umask())
        if target.exists():
            discarded = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
            os.replace(target, discarded)
            os.replace(partial, target)
            shutil.rmtree(discarded)
        else:
            os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def check_replaceable(directory: str | Path) -> None:
    """Raises FileExistsError if the directory holds something other than a saved log."""
    target = Path(directory)
    if target.exists() and not is_saved_log(target) and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(
            f"{target} exists and is not a saved log; choose another directory or remove it"
        )


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write(log: "Interactions", directory: Path, header: dict) -> None:
    np.save(directory / "items.npy", log.items)
    np.save(directory / "offsets.npy", log.offsets)
    if log.times is not None:
        np.save(directory / "times.npy", log.times)
    for ids, name in ((log.users, "users.arrow"), (log.item_ids, "items.arrow")):
        if ids.first is None:
            ids.save(directory / name)
    if log.metadata is not None:
        log.metadata.save(directory / "metadata.arrow")
    (directory / HEADER).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")


def is_saved_log(directory: str | Path) -> bool:
    """Whether a directory looks like a saved log."""
    return (Path(directory) / HEADER).is_file()


def open_parts(directory: str | Path) -> tuple[dict, str]:
    """The fields of the ``Interactions`` stored in ``directory``, and its fingerprint.

    Raises FileNotFoundError if there is no saved log, ValueError if it is of another format or damaged.
    """
    directory = Path(directory)
    header_path = directory / HEADER
    if not header_path.is_file():
        raise FileNotFoundError(
            f"{directory} is not a saved log (it has no {HEADER}); write one with "
            f"log.save({str(directory)!r}) or experiments/prepare.py"
        )
    try:
        header = json.loads(header_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{header_path} is damaged ({error}); prepare the log anew") from error
    if (
        not isinstance(header, dict)
        or header.get("format") != FORMAT
        or header.get("version") != FORMAT_VERSION
    ):
        raise ValueError(
            f"{header_path} is not of format {FORMAT} version {FORMAT_VERSION}; prepare the log anew"
        )
    try:
        return _parts(directory, header), header["fingerprint"]
    except KeyError as error:
        raise ValueError(f"{header_path} lacks {error}; prepare the log anew") from error


def _parts(directory: Path, header: dict) -> dict:
    interactions, num_users = header["interactions"], header["users"]
    item_ids = _open_ids(directory / "items.arrow", header["items"], header["first_item"])
    return {
        "items": _open_array(directory / "items.npy", interactions),
        "offsets": _open_array(directory / "offsets.npy", num_users + 1),
        "users": _open_ids(directory / "users.arrow", num_users, header["first_user"]),
        "item_ids": item_ids,
        "times": _open_array(directory / "times.npy", interactions) if header["times"] else None,
        "metadata": ItemMetadata.open(directory / "metadata.arrow", item_ids) if header["metadata"] else None,
        "name": header["name"],
    }


def _open_array(path: Path, length: int) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r" if length else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read ({error}); prepare the log anew") from error
    if array.shape != (length,):
        raise ValueError(
            f"{path} has the shape {array.shape} where the header says ({length},); prepare the log anew"
        )
    return array


def _open_ids(path: Path, length: int, first: int | None) -> IdMap:
    if first is not None:
        return IdMap.range(length, first)
    if not path.is_file():
        raise ValueError(f"{path} is missing; prepare the log anew")
    return IdMap.open(path, length)


__all__ = ["check_replaceable", "is_saved_log", "open_parts", "save"]
