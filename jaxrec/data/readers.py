"""Logs from files of any common kind, read in bounded memory, or from frames."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from jaxrec.data import grouping
from jaxrec.data.columns import choose_column
from jaxrec.data.encoding import IdEncoder, TimeEncoder, number_by_appearance
from jaxrec.data.frames import Frame, is_frame
from jaxrec.data.interactions import Interactions
from jaxrec.data.tables import Paths, Quote, Table, find_paths, open_frame, open_table

Column = str | int | None
Duplicates = Literal["warn", "keep", "first", "last"]
Missing = Literal["error", "drop"]
A_TIME = (
    "a time like those before it (a number, or a date in ISO order); mend it, give time_format=... "
    "(--time-format of prepare.py), or time=False if the order of the file counts"
)
logger = logging.getLogger(__name__)


def read_interactions(
    path: Paths | Frame,
    *,
    user: Column = None,
    item: Column = None,
    time: Column | Literal[False] = None,
    rating: Column = None,
    min_rating: float | None = None,
    separator: str | None = None,
    has_header: bool = True,
    quote: Quote = "auto",
    time_format: str | None = None,
    duplicates: Duplicates = "warn",
    missing: Missing = "error",
    name: str | None = None,
) -> Interactions:
    """Reads a log with one interaction a row: CSV, TSV, Parquet or JSON lines, each also .gz, or a frame.

    Rows may come in any order: they are grouped by user and sorted by time, stably, so that equal times
    keep the order of the file. Users are numbered in order of first appearance in the file, items in
    order of first appearance in the sorted histories (user after user).

    Args:
      path: a file, a pattern such as ``"part-*.csv"``, or a list of these, read as one log in that order;
        or a polars frame (lazy too) or a pandas frame.
      user: the column with user ids, by name or place (from 0); None guesses from common names.
      item: likewise for item ids. Ids are integers or text: a text column in which every value is an
        integer in its shortest form becomes integers; "007" in it keeps the whole column text. Floats that
        are whole numbers are integers, too.
      time: likewise for times: integers, other numbers, or dates (ISO order; see ``time_format``), which
        become seconds since 1970. Without a time column, or with ``False``, the order of the file
        counts. A guessed column of places in the history (``pos``) sorts and is not kept as times.
      rating: likewise for ratings, looked at only if ``min_rating`` is given.
      min_rating: interactions rated lower are left out.
      separator: what stands between the fields of a text file; None takes it from the first line.
      has_header: whether the first line of a text file names the columns; if not, give places.
      quote: what encloses fields that hold a separator; None if quotes are ordinary text. ``"auto"`` is the double
        quote, but where neither commas nor semicolons separate and some quote has no partner.
      time_format: strptime format of the dates, such as ``"%d.%m.%Y"``, where they are not in ISO order.
      duplicates: ``"first"`` or ``"last"`` keeps one interaction of a user with an item; ``"keep"`` keeps
        all; ``"warn"`` keeps all and says by a UserWarning how many rows repeat another one (same user,
        item and time, or user and item in a log without times).
      missing: ``"drop"`` leaves out rows whose user or item is empty, null or NaN; ``"error"`` refuses them.
      name: what the log is called in results; the file's name if None, ``frame`` for a frame.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is empty or damaged, a column is missing or could be several, or a row is
        ragged, lacks a value or holds a time that is none; the message says where.
    """
    if duplicates not in ("warn", "keep", "first", "last"):
        raise ValueError(f"duplicates is {duplicates!r}; choose 'warn', 'keep', 'first' or 'last'")
    if missing not in ("error", "drop"):
        raise ValueError(f"missing is {missing!r}; choose 'error' or 'drop'")
    users, items = IdEncoder(), IdEncoder()
    times: TimeEncoder | None = None
    paths = []
    for table in _open_tables(path, separator, quote, has_header):
        columns = _choose_columns(table, user, item, time, rating, min_rating)
        timed = columns["time"] is not None
        if not paths:
            times = TimeEncoder(time_format) if timed else None
            keep_times = timed and not columns["position"]
        elif timed != (times is not None):
            raise ValueError(
                f"{table.path} has {'a' if timed else 'no'} time column, unlike {paths[0]}; read them apart"
            )
        _read_table(table, columns, min_rating, missing, users, items, times)
        paths.append(table.path)
    if name is None:
        name = "frame" if is_frame(path) else _name_of(paths[0])
    log = _assemble(users, items, times, keep_times, duplicates, name)
    if not log.num_interactions:
        reason = "no rows" if missing == "error" else "no rows with a user and an item"
        reason = reason if min_rating is None else f"no row rated {min_rating} or higher"
        raise ValueError(f"{', '.join(map(str, paths))}: there are {reason}; nothing can be learnt from it")
    return log


def _open_tables(
    path: Paths | Frame, separator: str | None, quote: Quote, has_header: bool
) -> Iterator[Table]:
    if is_frame(path):
        yield open_frame(path)
        return
    for file in find_paths(path):
        yield open_table(file, separator, quote, has_header)


def _advice(role: str) -> str:
    """What to do where a column is not found by its name, in Python and on the command line."""
    return f"name it with {role}=... (--{role} of prepare.py)"


def _choose_columns(
    table: Table, user: Column, item: Column, time: Column | bool, rating: Column, min_rating: float | None
) -> dict:
    """Names of the columns by role; under "position" whether the time is a guessed place in the history."""

    def choose(role: str, given: Column, required: bool = True) -> str | None:
        advice = _advice("time" if role == "position" else role)
        return choose_column(
            table.path, table.names, role, given, required, advice=advice, has_header=table.has_header
        )

    position = False
    if time is False:
        time_column = None
    else:
        time_column = choose("time", time, required=False)
        if time_column is None:
            time_column = choose("position", None, required=False)
            position = time_column is not None
    columns = {
        "user": choose("user", user),
        "item": choose("item", item),
        "time": time_column,
        "rating": None,
        "position": position,
    }
    if min_rating is not None:
        columns["rating"] = choose("rating", rating)
    if columns["user"] == columns["item"]:
        raise ValueError(f"{table.path}: user and item are both column {columns['user']}; they must differ")
    return columns


def _read_table(
    table: Table,
    columns: dict,
    min_rating: float | None,
    missing: Missing,
    users: IdEncoder,
    items: IdEncoder,
    times: TimeEncoder | None,
) -> None:
    """Encodes all rows of one file."""
    needed = [columns[role] for role in ("user", "item", "time", "rating") if columns[role] is not None]
    ids = [columns["user"], columns["item"]]
    for batch in table.batches(needed, ids=ids, drop=missing == "drop"):
        if columns["rating"] is not None:
            batch = batch.filter(_ratings(table, batch[columns["rating"]]) >= min_rating)
        if times is not None:
            column = batch[columns["time"]]
            bad = times.add(column)
            if bad is not None:
                table.refuse(columns["time"], column[bad], A_TIME)
        users.add(batch[columns["user"]])
        items.add(batch[columns["item"]])


def _ratings(table: Table, column: pl.Series) -> pl.Series:
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count():
        table.refuse(column.name, column.filter(numbers.is_null())[0], "a number; mend it or remove the line")
    return numbers


def _assemble(
    user_encoder: IdEncoder,
    item_encoder: IdEncoder,
    time_encoder: TimeEncoder | None,
    keep_times: bool,
    duplicates: Duplicates,
    name: str,
) -> Interactions:
    """Sorts and numbers the encoded columns, a column at a time to hold memory down."""
    users, user_ids = number_by_appearance(*user_encoder.finish())
    items, raw_item_ids = item_encoder.finish()
    times = None if time_encoder is None else time_encoder.finish()
    order = grouping.order_by_user_and_time(users, times)
    if order is not None:
        users, items = users[order], items[order]
        times = None if times is None else times[order]
        del order
    times = times if keep_times else None
    if duplicates in ("first", "last"):
        kept = grouping.one_of_each_pair(users, items, duplicates)
        logger.info("%s: repeated interactions left out: %d", name, len(kept) - np.count_nonzero(kept))
        users, items = users[kept], items[kept]
        times = None if times is None else times[kept]
    elif duplicates == "warn":
        _warn_of_repeats(users, items, times, name)
    offsets = grouping.offsets_of(users, len(user_ids))
    del users
    codes, item_ids = number_by_appearance(items, raw_item_ids)
    codes += np.int32(1)
    return Interactions(codes, offsets, user_ids, item_ids, times, name=name)


def _warn_of_repeats(users: np.ndarray, items: np.ndarray, times: np.ndarray | None, name: str) -> None:
    repeats = grouping.count_repeats(users, items, times)
    if repeats:
        same = "user and item" if times is None else "user, item and time"
        warnings.warn(
            f"{name}: {repeats:,} of {len(items):,} rows repeat another row (same {same}) and are kept; "
            "duplicates='first' or 'last' (--duplicates of prepare.py) keeps one interaction of a user with an "
            "item, 'keep' silences this",
            stacklevel=4,
        )


def read_sequences(path: Paths, *, name: str | None = None) -> Interactions:
    """Reads a log with one user a line: ``user<TAB>item item item``, oldest first; also .gz.

    Users are numbered in the order of the lines, items in order of first appearance. Raises
    FileNotFoundError if there is no file, ValueError (with the line) if a line has no tab, no items, or
    a user that came before.
    """
    paths = find_paths(path)
    items, users, lengths = IdEncoder(), IdEncoder(), []
    for file in paths:
        table = open_table(file, "\t", None, has_header=False)
        if len(table.names) != 2:
            raise ValueError(
                f"{file} must hold lines 'user<TAB>item item item', and its first has {len(table.names)} "
                "fields between tabs; read_interactions reads one interaction a row"
            )
        for batch in table.batches(table.names, rows=1 << 16):
            users.add(batch["column_1"])
            lists = batch["column_2"].str.replace_all(r"\s+", " ").str.split(" ")
            lengths.append(lists.list.len().to_numpy())
            items.add(lists.explode())
    user_codes, raw_user_ids = users.finish()
    if len(raw_user_ids) != len(user_codes):
        repeated = raw_user_ids[int(np.argmax(np.bincount(user_codes)))]
        raise ValueError(
            f"{', '.join(map(str, paths))}: user {repeated!r} has more than one line; join them into one"
        )
    codes, item_ids = number_by_appearance(*items.finish())
    codes += np.int32(1)
    offsets = np.concatenate([[0], *lengths]).cumsum(dtype=np.int64)
    user_ids = number_by_appearance(user_codes, raw_user_ids)[1]
    return Interactions(codes, offsets, user_ids, item_ids, name=_name_of(paths[0]) if name is None else name)


def _name_of(path: Path) -> str:
    """The file's name without its suffixes: ``amazon-beauty`` of ``amazon-beauty.seq.txt.gz``."""
    return path.name.split(".")[0] or path.name


__all__ = ["read_interactions", "read_sequences"]
