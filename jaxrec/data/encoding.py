"""Columns of a log on their way into numbers, one batch of rows at a time, in bounded memory."""

import numpy as np
import polars as pl

from jaxrec.data.grouping import first_appearance
from jaxrec.data.identifiers import IdMap

TABLE_LIMIT = 1 << 27
"""Span of integer ids up to which codes are found in a table (4 bytes an entry), not by hashing."""

DATE_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y-%m-%d %H:%M:%S%.f UTC",
)
"""Year, month, day and an optional time of day; orders that could be mistaken need ``time_format``."""


class IdEncoder:
    """Gives each distinct id of a column a code, in batches; ids are integers or text.

    Text is taken as integers while every id of the column is an integer in its shortest form, so
    "7" becomes 7, but ids with leading zeros ("007") make the whole column text.
    """

    def __init__(self):
        self._codes: list[np.ndarray] = []
        self._known = pl.DataFrame(schema={"id": pl.Int64, "code": pl.Int32})
        self._table: np.ndarray | None = np.zeros(0, np.int32)
        self._lowest = 0

    def add(self, column: pl.Series) -> None:
        """Encodes one batch of ids without nulls."""
        if len(column) == 0:
            return
        column = column.rename("id")
        if column.dtype == pl.Categorical or column.dtype == pl.Enum:
            column = column.cast(pl.String)
        if self._known.schema["id"] == pl.String:
            column = column.cast(pl.String)
        else:
            numbers = _as_integers(column)
            if numbers is None:
                column = column.cast(pl.String)
                self._known = self._known.cast({"id": pl.String})
                self._table = None
            else:
                column = numbers
        codes = self._by_table(column) if self._table is not None else None
        self._codes.append(self._by_hash(column) if codes is None else codes)

    def finish(self) -> tuple[np.ndarray, pl.Series]:
        """The codes ``[N]`` int32 of all batches, and the id of each code."""
        codes = np.concatenate(self._codes) if self._codes else np.zeros(0, np.int32)
        self._codes.clear()
        return codes, self._known["id"]

    def _by_table(self, column: pl.Series) -> np.ndarray | None:
        """Codes by direct look-up; None (from then on) where the ids span too wide a range."""
        lowest, highest = column.min(), column.max()
        if len(self._table):
            lowest, highest = min(lowest, self._lowest), max(highest, self._lowest + len(self._table) - 1)
        span = highest - lowest + 1
        if span > TABLE_LIMIT:
            self._table = None
            return None
        if span > len(self._table):
            table = np.full(span, -1, np.int32)
            shift = self._lowest - lowest if len(self._table) else 0
            table[shift : shift + len(self._table)] = self._table
            self._table, self._lowest = table, lowest
        places = column.to_numpy() - self._lowest
        codes = self._table[places]
        fresh = _distinct(places[codes < 0], span=len(self._table))
        if len(fresh):
            self._table[fresh] = self._extend(pl.Series("id", fresh + self._lowest))
            codes = self._table[places]
        return codes

    def _by_hash(self, column: pl.Series) -> np.ndarray:
        codes = column.to_frame().join(self._known, on="id", how="left", maintain_order="left")["code"]
        missing = codes.is_null()
        if missing.any():
            unknown = column.filter(missing)
            fresh = unknown.unique()
            fresh_codes = self._extend(fresh)
            added = pl.DataFrame([fresh, pl.Series("code", fresh_codes)])
            filled = unknown.to_frame().join(added, on="id", how="left", maintain_order="left")["code"]
            result = codes.fill_null(-1).to_numpy().copy()
            result[missing.to_numpy()] = filled.to_numpy()
            return result
        return codes.to_numpy()

    def _extend(self, fresh: pl.Series) -> np.ndarray:
        """Appends ids that are not known yet; their codes."""
        start = len(self._known)
        if start + len(fresh) > np.iinfo(np.int32).max - 1:
            raise ValueError(f"there are more than {np.iinfo(np.int32).max - 1} distinct ids in a column")
        codes = np.arange(start, start + len(fresh), dtype=np.int32)
        self._known = pl.concat([self._known, pl.DataFrame([fresh, pl.Series("code", codes)])])
        return codes


def _distinct(places: np.ndarray, span: int) -> np.ndarray:
    """The distinct values of ``places`` (0 to ``span - 1``), sorted; by marking where that is cheap."""
    if span > 16 * len(places):
        return np.unique(places)
    marked = np.zeros(span, bool)
    marked[places] = True
    return np.flatnonzero(marked)


def _as_integers(column: pl.Series) -> pl.Series | None:
    """Ids as Int64, or None if one of them is not an integer in its shortest form."""
    if column.dtype == pl.String:
        numbers = column.cast(pl.Int64, strict=False)
        return numbers if numbers.null_count() == 0 and (numbers.cast(pl.String) == column).all() else None
    if column.dtype.is_float():
        numbers = column.cast(pl.Int64, strict=False)
        return numbers if numbers.null_count() == 0 and (numbers.cast(pl.Float64) == column).all() else None
    if column.dtype.is_integer():
        numbers = column.cast(pl.Int64, strict=False)
        return numbers if numbers.null_count() == 0 else None
    return None


def number_by_appearance(codes: np.ndarray, ids: pl.Series) -> tuple[np.ndarray, IdMap]:
    """Codes renumbered in order of first appearance (``[N]`` int32, from 0), and the map of their ids."""
    renumbered, appeared = first_appearance(codes, len(ids))
    return renumbered, IdMap.trusted(ids.gather(appeared))


class TimeEncoder:
    """Times of a log: integers as they are, other numbers as float64, dates as seconds since 1970 (UTC).

    Dates with fractions of a second become float64 seconds.
    """

    def __init__(self, time_format: str | None = None):
        self._formats = DATE_FORMATS if time_format is None else (time_format,)
        self._given = time_format is not None
        self._batches: list[np.ndarray] = []
        self._dates: bool | None = None

    def add(self, column: pl.Series) -> int | None:
        """Takes one batch without nulls; returns the first row that is no time, or None if all are."""
        if len(column) == 0:
            return None
        dates, values = self._read(column)
        if self._dates is not None and dates != self._dates:
            return 0
        if values.null_count() or (values.dtype.is_float() and not values.is_finite().all()):
            bad = values.is_null() | (values.is_finite().not_() if values.dtype.is_float() else False)
            return int(bad.fill_null(True).arg_max())
        self._dates = dates
        self._batches.append(values.to_numpy())
        return None

    def finish(self) -> np.ndarray:
        """``[N]`` int64 or float64."""
        times = np.concatenate(self._batches) if self._batches else np.zeros(0, np.int64)
        self._batches.clear()
        if self._dates:
            return times // 1_000_000 if not np.any(times % 1_000_000) else times / 1e6
        return times

    def _read(self, column: pl.Series) -> tuple[bool, pl.Series]:
        """Whether the batch holds dates, and its values (dates as microseconds); null where unreadable."""
        if column.dtype == pl.Date or column.dtype == pl.Datetime:
            return True, column.dt.timestamp("us")
        if column.dtype.is_integer():
            return False, column.cast(pl.Int64, strict=False)
        if column.dtype.is_float():
            return False, column.cast(pl.Float64)
        column = column.cast(pl.String).str.strip_chars()
        if self._given or self._dates:
            return True, self._parse_dates(column)
        numbers = column.cast(pl.Int64, strict=False)
        if numbers.null_count():
            numbers = column.cast(pl.Float64, strict=False)
        if numbers.null_count() == 0:
            return False, numbers
        return (True, self._parse_dates(column)) if numbers[0] is None else (False, numbers)

    def _parse_dates(self, column: pl.Series) -> pl.Series:
        """Microseconds since 1970 by the first format that fits each value; null where none does."""
        parsed = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(column))
        for time_format in self._formats:
            dates = column.str.strptime(pl.Datetime("us", "UTC"), time_format, strict=False)
            parsed = parsed.fill_null(dates.cast(pl.Int64))
            if parsed.null_count() == 0:
                break
        return parsed


__all__ = ["IdEncoder", "TimeEncoder", "number_by_appearance"]
