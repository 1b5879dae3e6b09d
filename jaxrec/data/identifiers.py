"""External ids of users and items, and the way from them to internal rows and back."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

Ids = pl.Series | np.ndarray | Iterable


class IdMap:
    """The external ids of users or items, in internal order: row r holds the id of row r.

    Ids are integers or strings and keep their polars dtype. The map is held in one of three forms:
    values in memory, values in an arrow IPC file that is opened on first use (``IdMap.open``), or an
    implicit range of integers that takes no memory (``IdMap.range``).
    """

    def __init__(self, values: pl.Series | Iterable):
        """Takes the ids in internal order; raises ValueError on null, repeated or other typed ids."""
        series = _as_ids(values)
        if series.null_count():
            raise ValueError(
                f"ids must not be null, but {series.null_count()} of {len(series)} are; drop those rows"
            )
        if series.n_unique() != len(series):
            repeated = series.filter(series.is_duplicated())[0]
            raise ValueError(f"ids must be unique, but {repeated!r} stands there more than once")
        self._init(values=series, length=len(series), first=None, path=None)

    def _init(self, values: pl.Series | None, length: int, first: int | None, path: Path | None) -> None:
        self._values = values
        self._length = length
        self._first = first
        self._path = path
        self._sorted: tuple[pl.Series, np.ndarray] | None = None

    @classmethod
    def range(cls, length: int, first: int = 1) -> "IdMap":
        """The integers ``first`` to ``first + length - 1``, implicit."""
        self = cls.__new__(cls)
        self._init(values=None, length=length, first=first, path=None)
        return self

    @classmethod
    def open(cls, path: Path | str, length: int) -> "IdMap":
        """Ids stored by ``save`` in an arrow IPC file, read on first use."""
        self = cls.__new__(cls)
        self._init(values=None, length=length, first=None, path=Path(path))
        return self

    @classmethod
    def trusted(cls, values: pl.Series) -> "IdMap":
        """A map over ids that are known to be unique and not null: the checks are left out."""
        self = cls.__new__(cls)
        self._init(values=values, length=len(values), first=None, path=None)
        return self

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        kind = "on disk" if self._values is None else self._values.dtype
        kind = kind if self._first is None else f"from {self._first}"
        return f"IdMap({self._length:,} ids, {kind})"

    @property
    def first(self) -> int | None:
        """The first id of an implicit range; None for a map that holds its ids."""
        return self._first

    @property
    def dtype(self) -> pl.DataType:
        """The polars dtype of the ids: an integer type or String."""
        return pl.Int64() if self._first is not None else self.values.dtype

    @property
    def values(self) -> pl.Series:
        """All ids in internal order; made on the spot for an implicit range."""
        if self._first is not None:
            return pl.Series("id", np.arange(self._first, self._first + self._length, dtype=np.int64))
        if self._values is None:
            values = pl.read_ipc(self._path).to_series()
            if len(values) != self._length:
                raise ValueError(
                    f"{self._path} holds {len(values)} ids, not {self._length} as recorded; prepare it anew"
                )
            self._values = values
        return self._values

    def lookup(self, ids: Ids) -> np.ndarray:
        """Internal rows of external ids, ``[n]`` int64; -1 where an id is unknown or null.

        Ids written as text match an integer map and integers match a map of text: ``"12"`` finds 12
        and 12 finds ``"12"``, while ``"012"`` finds neither.
        """
        if isinstance(ids, (str, bytes)):
            raise ValueError(f"lookup takes a list of ids, and got the single id {ids!r}; write [{ids!r}]")
        wanted = _as_dtype(_as_queries(ids), self.dtype)
        if self._first is not None:
            rows = wanted.fill_null(self._first - 1).to_numpy() - self._first
            return np.where((rows >= 0) & (rows < self._length), rows, -1)
        if self._length == 0 or len(wanted) == 0:
            return np.full(len(wanted), -1, np.int64)
        if self._sorted is None:
            order = self.values.arg_sort()
            self._sorted = self.values.gather(order), order.to_numpy()
        ordered, order = self._sorted
        places = ordered.search_sorted(wanted).to_numpy().astype(np.int64)
        places = np.minimum(places, self._length - 1)
        found = (ordered.gather(places) == wanted).fill_null(False).to_numpy()
        return np.where(found, order[places], np.int64(-1)).astype(np.int64)

    def external(self, rows: Iterable[int] | np.ndarray) -> pl.Series:
        """External ids of internal rows (0 to ``len - 1``); raises IndexError outside of them."""
        rows = np.asarray(rows, np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self._length):
            raise IndexError(
                f"rows run from 0 to {self._length - 1}, and {rows.min()} to {rows.max()} were asked for"
            )
        if self._first is not None:
            return pl.Series("id", rows + self._first)
        return self.values.gather(rows)

    def take(self, rows: np.ndarray) -> "IdMap":
        """The map of a selection of distinct rows, in the order given."""
        if len(rows) == self._length and np.array_equal(rows, np.arange(self._length)):
            return self
        return IdMap.trusted(self.external(rows))

    def save(self, path: Path | str) -> None:
        """Writes the ids into an arrow IPC file (not compressed, so that it opens memory-mapped)."""
        self.values.rename("id").to_frame().write_ipc(path, compression="uncompressed")


def _as_ids(values: pl.Series | Iterable) -> pl.Series:
    """A Series of integers or strings under the name "id"."""
    series = values if isinstance(values, pl.Series) else pl.Series(list(values), dtype=None)
    if series.dtype in (pl.Categorical, pl.Enum) or series.dtype == pl.Null:
        series = series.cast(pl.String)
    if not (series.dtype.is_integer() or series.dtype == pl.String):
        raise ValueError(f"ids must be integers or text, and these are {series.dtype}; convert them first")
    return series.rename("id")


def _as_queries(ids: Ids) -> pl.Series:
    """Any collection of ids as a Series; mixed types become text."""
    if isinstance(ids, pl.Series):
        return ids
    if isinstance(ids, np.ndarray) and ids.dtype.kind in "iuf":
        return pl.Series(ids)
    if isinstance(ids, np.ndarray) and ids.dtype.kind == "U":
        return pl.Series(ids.tolist(), dtype=pl.String)
    ids = list(ids)
    kinds = {type(value) for value in ids if value is not None}
    if all(issubclass(kind, (int, np.integer)) for kind in kinds):
        ids = [value if value is None else int(value) for value in ids]
        if all(value is None or -(2**63) <= value < 2**63 for value in ids):
            return pl.Series(ids, dtype=pl.Int64)
    elif kinds and all(issubclass(kind, (float, int, np.floating, np.integer)) for kind in kinds):
        return pl.Series([None if value is None else float(value) for value in ids], dtype=pl.Float64)
    return pl.Series([None if value is None else str(value) for value in ids], dtype=pl.String)


def _as_dtype(queries: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Queries in the dtype of the map; null where no id of that dtype is written so."""
    if queries.dtype == dtype:
        return queries
    if queries.dtype.is_float():  # what pandas makes of integers beside a missing value
        whole = queries.cast(pl.Int64, strict=False)
        queries = pl.select(pl.when(whole.cast(pl.Float64) == queries).then(whole)).to_series()
    elif not (queries.dtype.is_integer() or queries.dtype == pl.String):
        queries = queries.cast(pl.String)
    if dtype == pl.String:
        return queries.cast(pl.String)
    if queries.dtype == pl.String:
        numbers = queries.cast(dtype, strict=False)
        return pl.select(pl.when(numbers.cast(pl.String) == queries).then(numbers)).to_series()
    return queries.cast(dtype, strict=False)


__all__ = ["IdMap"]
