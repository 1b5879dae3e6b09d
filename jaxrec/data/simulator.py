"""Simulated logs: the embedded data of jaxrec, drawn from a process whose best possible score is known.

``jaxrec.data.simulated_process`` states the process and its formulas, ``jaxrec.data.oracle`` ranks by it.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from jaxrec.data.identifiers import IdMap
from jaxrec.data.interactions import Interactions
from jaxrec.data.items import ItemMetadata
from jaxrec.data.simulated_histories import draw_histories, draw_lengths, draw_times
from jaxrec.data.simulated_process import SimulatedProcess

_LENGTHS, _ITEMS, _TIMES = 1, 2, 3
"""Streams of random numbers; stream 0 is the process's own."""

_GENRES = (
    "adventure", "ambient", "biography", "blues", "chamber", "comedy", "crime", "dance", "drama", "essay",
    "fable", "folk", "garden", "history", "island", "jazz", "kitchen", "legend", "mystery", "nature",
    "opera", "poetry", "quest", "romance", "satire", "travel", "unseen", "voyage", "western", "youth",
)  # fmt: skip


def simulate(
    num_users: int = 2000,
    num_items: int = 500,
    seed: int = 0,
    *,
    num_categories: int | None = None,
    mean_length: float = 25.0,
    max_length: int | None = None,
    transition: float = 0.5,
    repeats: bool = False,
    directory: str | os.PathLike | None = None,
) -> Interactions:
    """A simulated log: long-tailed popularity, categories, drifting interests, first-order transitions.

    Shorthand for ``sample(SimulatedProcess(...), num_users)``. The same process gives the best
    achievable score: ``oracle_score(SimulatedProcess(...), split)``.

    Args:
      num_users: number of users.
      num_items: items of the catalogue.
      seed: equal arguments give equal logs.
      num_categories: categories; None means about √num_items.
      mean_length: mean history length; the shortest is 5, the tail is long.
      max_length: longest history; None means min(200, num_items / 2).
      transition: how often the next item follows the last one's transitions.
      repeats: whether a user may consume an item twice.
      directory: where to write the log as memory-mapped arrays, which bounds the memory taken whatever
        the size; None keeps it in memory.

    Raises:
      ValueError: an argument is out of range.
      FileExistsError: ``directory`` exists already.
    """
    process = SimulatedProcess(
        num_items=num_items,
        seed=seed,
        num_categories=num_categories,
        mean_length=mean_length,
        max_length=max_length,
        transition=transition,
        repeats=repeats,
    )
    return sample(process, num_users, directory=directory)


def sample(
    process: SimulatedProcess, num_users: int, *, directory: str | os.PathLike | None = None
) -> Interactions:
    """Draws ``num_users`` users from ``process``: items, times in seconds, titles and categories.

    Users are drawn in blocks whose size only the process decides, each block from its own random
    streams: memory beside the result is bounded, and equal on disk and in memory.

    Args:
      process: the process.
      num_users: number of users; their ids are 1 to ``num_users``.
      directory: as in ``simulate``. While it is written it takes twice its size on disk.

    Raises:
      ValueError: ``num_users`` is below 1.
      FileExistsError: ``directory`` exists already.
    """
    if num_users < 1:
        raise ValueError(f"num_users is {num_users}; a simulated log needs at least 1 user.")
    if directory is None:
        offsets = _draw_offsets(process, num_users)
        return _draw_log(process, offsets, np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int64))
    target = Path(directory)
    if target.exists():
        raise FileExistsError(f"{target} exists already; remove it or choose another directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        offsets = _draw_offsets(process, num_users)
        items = np.lib.format.open_memmap(scratch / "items.npy", "w+", np.int32, (int(offsets[-1]),))
        times = np.lib.format.open_memmap(scratch / "times.npy", "w+", np.int64, (int(offsets[-1]),))
        _draw_log(process, offsets, items, times).save(target)
    finally:
        shutil.rmtree(scratch)
    return Interactions.open(target)


def item_metadata(process: SimulatedProcess) -> ItemMetadata:
    """Invented titles ("drama 017": category and popularity rank in it) and categories, in id order."""
    tables = process.tables
    slots = np.argsort(tables.item_of_slot)
    category = tables.category[slots]
    rank = slots - tables.first_slot[category] + 1
    names = pl.Series([_category_name(index) for index in range(process.categories)], dtype=pl.String)
    frame = pl.DataFrame({"category": names.gather(category), "rank": rank})
    titles = frame.select(pl.col("category") + " " + pl.col("rank").cast(pl.String).str.zfill(3)).to_series()
    return ItemMetadata(
        IdMap.range(process.num_items), titles, frame["category"].reshape((-1, 1)).arr.to_list()
    )


def _category_name(index: int) -> str:
    volume, genre = divmod(index, len(_GENRES))
    return _GENRES[genre] if volume == 0 else f"{_GENRES[genre]} vol. {volume + 1}"


def _blocks(process: SimulatedProcess, num_users: int) -> Iterator[tuple[int, int, int]]:
    """(block, first user, end), the histories of a block taking at most 16 MiB or 256 users."""
    size = max(256, min(16_384, 2**22 // process.longest))
    for block, first in enumerate(range(0, num_users, size)):
        yield block, first, min(first + size, num_users)


def _draw_offsets(process: SimulatedProcess, num_users: int) -> np.ndarray:
    """``[num_users + 1]`` int64."""
    offsets = np.zeros(num_users + 1, np.int64)
    for block, first, end in _blocks(process, num_users):
        generator = np.random.default_rng([process.seed, _LENGTHS, block])
        offsets[first + 1 : end + 1] = draw_lengths(process, end - first, generator)
    return np.cumsum(offsets, out=offsets)


def _draw_log(
    process: SimulatedProcess, offsets: np.ndarray, items: np.ndarray, times: np.ndarray
) -> Interactions:
    """Fills the flat arrays block by block and wraps them."""
    for block, first, end in _blocks(process, len(offsets) - 1):
        run = slice(offsets[first], offsets[end])
        lengths = np.diff(offsets[first : end + 1])
        items[run] = draw_histories(process, lengths, np.random.default_rng([process.seed, _ITEMS, block]))
        times[run] = draw_times(lengths, np.random.default_rng([process.seed, _TIMES, block]))
    metadata = item_metadata(process)
    users = IdMap.range(len(offsets) - 1)
    return Interactions(items, offsets, users, metadata.item_ids, times, metadata, process.name)


__all__ = ["item_metadata", "sample", "simulate"]
