"""Histories as callers have them, under their own ids, to flat internal arrays; and lists back to frames."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from jaxrec.data.columns import choose_column
from jaxrec.data.identifiers import IdMap
from jaxrec.data.interactions import Interactions
from jaxrec.data.items import ItemMetadata

OnUnknown = Literal["ignore", "warn", "raise"]
NAMED_AT_MOST = 5
HISTORY_ITEMS = "items in the histories"


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
    if isinstance(histories, Interactions):
        users, rows = histories.users.values.rename("user_id"), _rows_of_log(histories, item_ids, on_unknown)
        offsets = np.asarray(histories.offsets)
    else:
        users, external, offsets = _flatten(histories)
        rows = _lookup(external, item_ids, on_unknown, HISTORY_ITEMS)
    known = rows >= 0
    before = np.concatenate([[0], np.cumsum(known)])
    return Histories(users, (rows[known] + 1).astype(np.int32), before[offsets].astype(np.int64))


def known_items(
    ids: Any, item_ids: IdMap, *, on_unknown: OnUnknown = "warn", what: str = "items"
) -> np.ndarray:
    """Internal ids, int32, of those external ids that the catalogue has; see ``read_histories``."""
    rows = _lookup(ids, item_ids, on_unknown, what)
    return (rows[rows >= 0] + 1).astype(np.int32)


def _rows_of_log(log: Interactions, item_ids: IdMap, on_unknown: OnUnknown) -> np.ndarray:
    """``[N]`` catalogue rows of a log's events, -1 where unknown; each of its items is looked up once."""
    taken = np.flatnonzero(np.bincount(log.items, minlength=log.num_items + 1))
    rows = np.full(log.num_items + 1, -1, np.int64)
    rows[taken] = _lookup(log.item_ids.external(taken - 1), item_ids, on_unknown, HISTORY_ITEMS)
    return rows[log.items]


def _lookup(external: Any, item_ids: IdMap, on_unknown: OnUnknown, what: str) -> np.ndarray:
    rows = item_ids.lookup(external)
    if on_unknown != "ignore" and (rows < 0).any():
        external = list(external)
        names = dict.fromkeys(external[row] for row in np.flatnonzero(rows < 0))
        shown = ", ".join(map(repr, list(names)[:NAMED_AT_MOST])) + (
            ", ..." if len(names) > NAMED_AT_MOST else ""
        )
        found = f"{len(names)} of the {what} are not among the {len(item_ids)} of the catalogue: {shown}"
        if on_unknown == "raise":
            raise ValueError(f"{found}; leave them out, or pass on_unknown='ignore' or 'warn'")
        warnings.warn(f"{found}; they are left out (on_unknown='ignore' keeps this quiet)", stacklevel=4)
    return rows


def _flatten(histories: Any) -> tuple[pl.Series, Any, np.ndarray]:
    """Users, external item ids of all their events, and offsets, from any accepted form."""
    if hasattr(histories, "columns"):
        return _flatten_frame(histories)
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


def _flatten_frame(frame: Any) -> tuple[pl.Series, Any, np.ndarray]:
    names = [str(name) for name in frame.columns]
    where = Path("the frame of histories")
    user, item = (_column(frame, choose_column(where, names, role, None)) for role in ("user", "item"))
    if user.null_count() or item.null_count():
        raise ValueError("the frame of histories has rows without a user or an item; drop them first")
    names = user.unique(maintain_order=True)
    code = pl.DataFrame({"user": names, "code": np.arange(len(names))})
    codes = user.to_frame("user").join(code, on="user", how="left", maintain_order="left")["code"].to_numpy()
    order = np.argsort(codes, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))]).astype(np.int64)
    return names.rename("user_id"), item.gather(order), offsets


def _column(frame: Any, name: str) -> pl.Series:
    """A column of a polars or pandas frame (for the latter, polars' own way needs one more package)."""
    if isinstance(frame, pl.DataFrame):
        return frame[name]
    values = frame[name]
    return pl.Series(name, values.astype(object).where(values.notna(), None).tolist(), strict=False)


def recommendation_frame(
    users: pl.Series,
    item_ids: IdMap,
    items: np.ndarray,
    scores: np.ndarray,
    valid: np.ndarray,
    metadata: ItemMetadata | None = None,
    spread: np.ndarray | None = None,
) -> pl.DataFrame:
    """Lists ``[n, K]`` as a frame ``user_id, item_id, score, rank``.

    ``spread`` follows where it is given, and ``title`` where metadata is. Places that are not valid are left out.
    """
    row, place = np.nonzero(valid)
    chosen = items[row, place] - 1
    columns = [
        users.gather(row).rename("user_id"),
        item_ids.external(chosen).rename("item_id"),
        pl.Series("score", scores[row, place]),
        pl.Series("rank", place + 1, dtype=pl.Int32),
    ]
    if spread is not None:
        columns.append(pl.Series("spread", spread[row, place]))
    if metadata is not None:
        columns.append(metadata.titles.gather(chosen).rename("title"))
    return pl.DataFrame(columns)


__all__ = [
    "Histories",
    "OnUnknown",
    "known_items",
    "read_histories",
    "recommendation_frame",
]
