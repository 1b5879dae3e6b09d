"""Public data sets by name: downloaded once, prepared once, then opened at once.

A data set lives in its own folder of the cache: the publisher's files as they were downloaded (with their
SHA-256 beside them, see ``download``), and the log prepared from them. Checksums: a MovieLens release is held
to the MD5 that its publisher gives; no other publisher gives one, so there the first download is trusted, and
later ones are held to it.
"""

import difflib
import os
import shutil
from pathlib import Path

from jaxrec.data.archive import extract
from jaxrec.data.catalog_entries import Dataset, entries
from jaxrec.data.download import Progress, fetch, locked
from jaxrec.data.interactions import Interactions
from jaxrec.data.storage import is_saved_log

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MOST_BYTES = 1 << 33


def available() -> dict[str, Dataset]:
    """The named data sets: name, one-line description, terms, source page and addresses of each."""
    return entries()


def load(
    name: str,
    *,
    cache: str | os.PathLike | None = None,
    items: bool | None = None,
    progress: Progress | None = None,
) -> Interactions:
    """A public data set by name, unfiltered: every rating, review or check-in counts as an interaction.

    Downloads over https on the first call and keeps files and prepared log in the cache; later calls
    open the prepared log, memory-mapped. Interrupted downloads go on where they stopped. Respect the terms
    of the data: ``available()[name].terms``.

    Args:
      name: one of ``available()``, such as ``movielens-1m`` or ``amazon-2014-beauty``.
      cache: folder for downloads; None means ``$JAXREC_CACHE``, or else ``jaxrec`` in ``$XDG_CACHE_HOME`` or
        ``~/.cache``.
      items: whether to fetch titles and categories that are a file of their own (for Amazon up to
        gigabytes); None fetches small ones. MovieLens always has them.
      progress: called with (bytes there, bytes in all or None) during a download.

    Raises:
      ValueError: no such name, a checksum differs, or a file is not as it should be.
      ConnectionError: the network or the server fails.
      FileNotFoundError: the publisher has moved the file.
      OSError: no room on the disk, or the cache is not writable.
    """
    known = entries()
    if name not in known:
        raise ValueError(unknown_name(name))
    return prepare(known[name], cache=cache, items=items, progress=progress)


def unknown_name(name: str) -> str:
    """What to tell of a name that no data set has."""
    known = entries()
    near = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"there is no data set {name!r}; {hint}jaxrec.data.available() lists all {len(known)}"


def prepare(
    dataset: Dataset,
    *,
    cache: str | os.PathLike | None = None,
    items: bool | None = None,
    progress: Progress | None = None,
    allow_http_loopback: bool = False,
) -> Interactions:
    """Fetches and reads a data set, or opens what an earlier call prepared; arguments and errors as ``load``.

    Args:
      dataset: a row of the table, or one of your own.
      allow_http_loopback: also accept http to this machine itself (for tests).
    """
    items = dataset.items_by_default if items is None else items
    items = items and dataset.items_url is not None
    root = cache_folder(cache) / dataset.name
    prepared = root / ("prepared-with-items" if items else "prepared")
    if not is_saved_log(prepared):
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / "prepare.lock"):
            if not is_saved_log(prepared):
                _prepare(dataset, root, items, progress, allow_http_loopback).save(prepared)
    try:
        return Interactions.open(prepared)
    except ValueError as error:
        raise ValueError(
            f"the prepared form of {dataset.name} is damaged ({error}); remove {prepared}"
        ) from error


def cache_folder(cache: str | os.PathLike | None = None) -> Path:
    """Where downloads are kept; see ``load``."""
    if cache is not None:
        return Path(cache).expanduser()
    if os.environ.get("JAXREC_CACHE"):
        return Path(os.environ["JAXREC_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "jaxrec"


def _prepare(
    dataset: Dataset, root: Path, items: bool, progress: Progress | None, allow_http_loopback: bool
) -> Interactions:
    """Downloads, unpacks and reads; what was unpacked is removed again."""
    path = _fetch(dataset, dataset.url, dataset.md5_url, root, progress, allow_http_loopback)
    if path.name.endswith(_ARCHIVES):
        folder = root / "unpacked"
        if folder.exists():  # left by a process that was killed
            shutil.rmtree(folder)
        try:
            inside = list(extract(path, folder, max_bytes=_MOST_BYTES).iterdir())
            inner = inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
            log = dataset.read(inner, name=dataset.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    else:
        log = dataset.read(path, name=dataset.name)
    if items:
        path = _fetch(dataset, dataset.items_url, None, root, progress, allow_http_loopback)
        log = log.with_metadata(dataset.read_items(path, log.item_ids))
    return log


def _fetch(
    dataset: Dataset,
    url: str,
    md5_url: str | None,
    root: Path,
    progress: Progress | None,
    allow_http_loopback: bool,
) -> Path:
    """Fetches one file of a data set; says where to put it by hand if that fails."""
    path = root / url.rsplit("/", 1)[-1]
    try:
        return fetch(url, path, md5_url=md5_url, progress=progress, allow_http_loopback=allow_http_loopback)
    except (ConnectionError, FileNotFoundError) as error:
        raise type(error)(
            f"{error}. {dataset.name} is documented at {dataset.source}; "
            f"a file fetched by hand goes to {path}"
        ) from error


__all__ = ["Dataset", "available", "cache_folder", "load", "prepare", "unknown_name"]
