"""Histories as callers have them, under their own ids, to flat internal arrays; and lists back to frames."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from jaxrec.data.columns import choose_column
from jaxrec.data.identifiers import IdMap
from jaxrec.data.interactions import Interactions
from jaxrec.data.items import ItemMetadata
from jaxrec.data.windows import bucket_lengths

OnUnknown = Literal["ignore", "warn", "raise"]
NAMED_AT_MOST = 5


class Histories(NamedTuple):
    """Histories of n users in internal ids.

    Attributes:
      users: external ids, ``[n]``; places 0, 1, ... where the caller gave none.
      items: int32, all known items of all users, one user after the other, oldest first.
      offsets: int64 ``[n + 1]``.
    """

    users: pl.Series
    items: np.ndarray
    offsets: np.ndarray


def read_histories(histories: Any, item_ids: IdMap, *, on_unknown: OnUnknown = "warn") -> Histories:
    """Brings histories of external ids into internal form.

    Args:
      histories: a mapping from user to list of items, a list of lists, an ``Interactions``, or a polars or
        pandas frame with one row an event (columns of user and item guessed by name, a user's rows oldest
        first).
      item_ids: external ids of the catalogue.
      on_unknown: items that are not in it are left out silently (``ignore``), with one warning (``warn``),
        or are an error (``raise``).

    Raises:
      ValueError: the form is none of these, or an item is unknown and ``on_unknown="raise"``.
    """
    if on_unknown not in ("ignore", "warn", "raise"):
        raise ValueError(f"on_unknown must be 'ignore', 'warn' or 'raise', got {on_unknown!r}")
    users, external, offsets = _flatten(histories)
    rows = _lookup(external, item_ids, on_unknown, "items in the histories")
    known = rows >= 0
    before = np.concatenate([[0], np.cumsum(known)])
    return Histories(users, (rows[known] + 1).astype(np.int32), before[offsets].astype(np.int64))


def known_items(ids: Any, item_ids: IdMap, *, on_unknown: OnUnknown = "warn", what: str = "items") -> np.ndarray:
    """Internal ids, int32, of those external ids that the catalogue has; see ``read_histories``."""
    rows = _lookup(ids, item_ids, on_unknown, what)
    return (rows[rows >= 0] + 1).astype(np.int32)


def _lookup(external: Any, item_ids: IdMap, on_unknown: OnUnknown, what: str) -> np.ndarray:
    rows = item_ids.lookup(external)
    if on_unknown != "ignore" and (rows < 0).any():
        external = list(external)
        names = dict.fromkeys(external[row] for row in np.flatnonzero(rows < 0))
        shown = ", ".join(map(repr, list(names)[:NAMED_AT_MOST])) + (", ..." if len(names) > NAMED_AT_MOST else "")
        found = f"{len(names)} of the {what} are not among the {len(item_ids)} of the catalogue: {shown}"
        if on_unknown == "raise":
            raise ValueError(f"{found}; leave them out, or pass on_unknown='ignore' or 'warn'")
        warnings.warn(f"{found}; they are left out (on_unknown='ignore' keeps this quiet)", stacklevel=4)
    return rows


def _flatten(histories: Any) -> tuple[pl.Series, Any, np.ndarray]:
    """Users, external item ids of all their events, and offsets, from any accepted form."""
    if isinstance(histories, Interactions):
        external = histories.item_ids.external(histories.items - 1)
        return histories.users.values.rename("user_id"), external, np.asarray(histories.offsets)
    if hasattr(histories, "columns"):
        frame = histories if isinstance(histories, pl.DataFrame) else pl.from_pandas(histories)
        return _flatten_frame(frame)
    if isinstance(histories, Mapping):
        return _flatten_lists(list(histories), list(histories.values()))
    if isinstance(histories, str | bytes | Path) or not isinstance(histories, Iterable):
        raise ValueError(
            "histories must be a dict of user to items, a list of lists, or a frame with one row an event; got"
            f" {type(histories).__name__} (read files with jaxrec.data.read_interactions first)"
        )
    return _flatten_lists(None, list(histories))


def _flatten_lists(users: list | None, lists: list) -> tuple[pl.Series, Any, np.ndarray]:
    for place, history in enumerate(lists):
        if isinstance(history, str | bytes) or not isinstance(history, Iterable):
            name = place if users is None else users[place]
            raise ValueError(f"the history of user {name!r} must be a list of items, got {history!r}")
    lists = [list(history) for history in lists]
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in lists], dtype=np.int64)])
    external = [item for history in lists for item in history]
    names = pl.Series("user_id", np.arange(len(lists)) if users is None else users)
    return names, external, offsets.astype(np.int64)


def _flatten_frame(frame: pl.DataFrame) -> tuple[pl.Series, Any, np.ndarray]:
    where = Path("the frame of histories")
    user = frame[choose_column(where, frame.columns, "user", None)]
    item = frame[choose_column(where, frame.columns, "item", None)]
    if user.null_count() or item.null_count():
        raise ValueError("the frame of histories has rows without a user or an item; drop them first")
    names = user.unique(maintain_order=True)
    code = pl.DataFrame({"user": names, "code": np.arange(len(names))})
    codes = user.to_frame("user").join(code, on="user", how="left", maintain_order="left")["code"].to_numpy()
    order = np.argsort(codes, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))]).astype(np.int64)
    return names.rename("user_id"), item.gather(order), offsets


class HistoryBatch(NamedTuple):
    """Histories of a batch, padded to one of few shapes.

    Attributes:
      rows: ``[b]`` which histories these are; b of the B rows below are real.
      items: int32 ``[B, L]``, the newest items, right-aligned.
      seen: int32 ``[B, S]``, the whole history, 0 is filling.
    """

    rows: np.ndarray
    items: np.ndarray
    seen: np.ndarray


def power_of_two(numbers: np.ndarray) -> np.ndarray:
    """The smallest powers of two that are not below ``numbers``."""
    return 2 ** np.ceil(np.log2(np.maximum(numbers, 1))).astype(np.int64)


def gather_ends(items: np.ndarray, starts: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """The last ``length`` items of ``items[starts[r]:ends[r]]``, right-aligned: int32 ``[n, length]``."""
    if not len(items):
        return np.zeros((len(starts), length), np.int32)
    places = ends[:, None] - length + np.arange(length)
    real = places >= starts[:, None]
    return np.where(real, items[np.where(real, places, 0)], 0).astype(np.int32)


def history_batches(
    items: np.ndarray, offsets: np.ndarray, *, max_length: int, batch_size: int
) -> Iterator[HistoryBatch]:
    """Cuts histories into batches of few shapes: lengths are buckets, rows and S powers of two.

    Args:
      items: int32, all histories one after the other.
      offsets: int64 ``[n + 1]``.
      max_length: items that the model reads.
      batch_size: rows of a batch, at most.
    """
    lengths = np.diff(offsets)
    buckets = np.asarray(bucket_lengths(max_length))
    window = buckets[np.searchsorted(buckets, np.minimum(lengths, max_length))]
    seen = np.where(lengths <= window, window, power_of_two(lengths))
    order = np.lexsort((seen, window))
    shapes = np.stack([window, seen], axis=1)[order]
    borders = np.flatnonzero((shapes[1:] != shapes[:-1]).any(axis=1)) + 1
    for group in np.split(order, borders):
        for start in range(0, len(group), batch_size):
            rows = group[start : start + batch_size]
            padded = np.full(min(int(power_of_two(np.asarray(len(rows)))), batch_size), rows[0])
            padded[: len(rows)] = rows
            ends = offsets[padded + 1]
            whole = gather_ends(items, offsets[padded], ends, int(seen[rows[0]]))
            newest = whole if whole.shape[1] == window[rows[0]] else whole[:, -window[rows[0]] :]
            yield HistoryBatch(rows, newest, whole)


def recommendation_frame(
    users: pl.Series,
    item_ids: IdMap,
    items: np.ndarray,
    scores: np.ndarray,
    valid: np.ndarray,
    metadata: ItemMetadata | None = None,
) -> pl.DataFrame:
    """Lists ``[n, K]`` as a frame ``user_id, item_id, score, rank``, and ``title`` where metadata is given.

    Places that are not valid are left out.
    """
    row, place = np.nonzero(valid)
    chosen = items[row, place] - 1
    columns = [
        users.gather(row).rename("user_id"),
        item_ids.external(chosen).rename("item_id"),
        pl.Series("score", scores[row, place]),
        pl.Series("rank", place + 1, dtype=pl.Int32),
    ]
    if metadata is not None:
        columns.append(metadata.titles.gather(chosen).rename("title"))
    return pl.DataFrame(columns)


__all__ = [
    "Histories",
    "HistoryBatch",
    "OnUnknown",
    "history_batches",
    "known_items",
    "read_histories",
    "recommendation_frame",
]
