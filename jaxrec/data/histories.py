"""Histories as callers have them, under their own ids, to flat internal arrays; and lists back to frames."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import polars as pl

from jaxrec.data.columns import choose_column
from jaxrec.data.encoding import TimeEncoder
from jaxrec.data.frames import Frame, frame_names, is_frame, lazy_frame
from jaxrec.data.identifiers import IdMap
from jaxrec.data.interactions import Interactions
from jaxrec.data.items import ItemMetadata
from jaxrec.data.tables import empty_as_null

OnUnknown = Literal["ignore", "warn", "raise"]
NAMED_AT_MOST = 5
HISTORY_ITEMS = "items in the histories"
FRAME = Path("the frame of histories")


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
      histories: a mapping from user to list of items (a pandas Series of lists counts as one from its index),
        a list of lists, an ``Interactions``, or a polars frame (lazy too) or pandas frame. A frame has one row
        an event, or one row a user with lists in the column of items (and of times, if there is one).
        Columns of user, item and time are guessed from the names that ``read_interactions`` knows; a user's
        events are sorted by time, stably, and without a column of times (or of places, ``pos``) the order of
        the rows counts, oldest first. Users come in the order of their first row.
      item_ids: external ids of the catalogue.
      on_unknown: items that are not in it are left out silently (``ignore``), with one warning (``warn``),
        or are an error (``raise``).

    Raises:
      ValueError: the form is none of these, a user, item or time of a frame is missing or no such thing, the
        users are of several types, or an item is unknown and ``on_unknown="raise"``.
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
    if is_frame(histories):
        return _flatten_frame(histories)
    if isinstance(histories, Mapping):
        return _flatten_lists(list(histories), list(histories.values()))
    if hasattr(histories, "index") and hasattr(histories, "items"):  # a pandas Series
        return _flatten_lists(histories.index.tolist(), histories.tolist())
    if isinstance(histories, str | bytes | Path) or not isinstance(histories, Iterable):
        raise ValueError(
            "histories must be a dict of user to items, a list of lists, or a frame of events; got"
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
    names = pl.Series("user_id", np.arange(len(lists))) if users is None else _user_ids(users)
    return names, external, offsets.astype(np.int64)


def _user_ids(users: list) -> pl.Series:
    """The users of a mapping ``[n]``; ValueError if they are of several types, missing or repeated."""
    try:
        names = pl.Series("user_id", users)
    except (TypeError, OverflowError, pl.exceptions.PolarsError) as error:
        examples = {type(user).__name__: user for user in reversed(users)}
        shown = " and ".join(f"{user!r} ({kind})" for kind, user in reversed(examples.items()))
        raise ValueError(
            f"the users of the histories are of several types: {shown}; make all of them text, or all integers"
        ) from error
    if names.dtype == pl.Object:
        return names
    names = names.fill_nan(None) if names.dtype.is_float() else names
    _refuse_repeated(names)
    return _whole(names)


def _refuse_repeated(names: pl.Series) -> None:
    if names.null_count():
        raise ValueError("the histories have a user without a name (None or NaN); name it or leave it out")
    if names.n_unique() != len(names):
        repeated = names.filter(names.is_duplicated())[0]
        raise ValueError(f"the histories hold user {repeated!r} more than once; join them into one list")


def _flatten_frame(frame: Frame) -> tuple[pl.Series, Any, np.ndarray]:
    """As ``_flatten``, from a frame of events or of one list a user."""
    columns = _choose_columns(frame_names(frame))
    chosen = list(dict.fromkeys(columns.values()))
    frame = empty_as_null(lazy_frame(frame, chosen).collect())
    user, item = frame[columns["user"]], frame[columns["item"]]
    time = frame[columns["time"]] if "time" in columns else None
    if user.null_count() or item.null_count():
        raise ValueError(f"{FRAME} has rows without a user or an item; drop them first")
    if isinstance(item.dtype, pl.List | pl.Array):
        return _flatten_nested(user, item, time)
    names = user.unique(maintain_order=True)
    code = pl.DataFrame({"user": names, "code": np.arange(len(names))})
    codes = user.to_frame("user").join(code, on="user", how="left", maintain_order="left")["code"].to_numpy()
    order = _order(codes, time)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))]).astype(np.int64)
    return _whole(names).rename("user_id"), item.gather(order), offsets


def _choose_columns(names: list[str]) -> dict[str, str]:
    """Names of the columns by role; "time" only if there is one, of times or of places."""
    columns = {}
    for role in ("user", "item", "time", "position"):
        required = role in ("user", "item")
        name = f"{role}_id" if required else role
        advice = f"there should be one such column, e.g. {name}"
        found = choose_column(FRAME, names, role, None, required, advice=advice)
        if found is not None:
            columns.setdefault("time" if role == "position" else role, found)
    return columns


def _flatten_nested(
    user: pl.Series, item: pl.Series, time: pl.Series | None
) -> tuple[pl.Series, Any, np.ndarray]:
    """As ``_flatten``, from one row a user; times count only where they are lists, too."""
    _refuse_repeated(user)
    item = item.cast(pl.List(item.dtype.inner))
    lengths = item.list.len().to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    item = _flat(item)
    if item.null_count():
        raise ValueError(f"{FRAME} has lists with a missing item; drop it first")
    if time is not None and isinstance(time.dtype, pl.List):
        if not np.array_equal(time.list.len().fill_null(0).to_numpy(), lengths):
            raise ValueError(
                f"{FRAME} has lists of {time.name} that are not as long as the lists of {item.name}"
            )
        codes = np.repeat(np.arange(len(user)), lengths)
        item = item.gather(_order(codes, _flat(time)))
    return _whole(user).rename("user_id"), item, offsets


def _flat(lists: pl.Series) -> pl.Series:
    return lists.filter(lists.list.len() > 0).explode()


def _order(codes: np.ndarray, time: pl.Series | None) -> np.ndarray:
    """``[N]`` rows sorted by user, then by time, stably; ValueError at a row whose time is none."""
    if time is None:
        return np.argsort(codes, kind="stable")
    encoder = TimeEncoder()
    bad = encoder.add(time)
    if bad is not None:
        _refuse_time(time, bad)
    return np.lexsort((encoder.finish(), codes))


def _refuse_time(time: pl.Series, row: int) -> NoReturn:
    raise ValueError(
        f"{FRAME}: column {time.name} holds {time[row]!r} in event {row + 1}, which is not a time (a number, or "
        "a date in ISO order); mend it, or drop the column if the order of the rows counts"
    )


def _whole(users: pl.Series) -> pl.Series:
    """Users that are whole numbers in a column of floats (as pandas makes them beside a gap) as integers."""
    if not users.dtype.is_float():
        return users
    whole = users.cast(pl.Int64, strict=False)
    exact = not whole.null_count() and (whole.cast(users.dtype) == users).all()
    return whole if exact else users


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
