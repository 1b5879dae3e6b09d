"""Rows as batches of columns, whatever they come as: CSV, TSV, Parquet, JSON lines (also .gz), or a frame."""

import csv
import dataclasses
import glob
import gzip
import io
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NoReturn

import polars as pl

from jaxrec.data import diagnosis
from jaxrec.data.frames import Frame, frame_names, is_frame, lazy_frame
from jaxrec.data.line_counts import LineCounts, count_lines, has_odd_quotes

BATCH_ROWS = 1 << 22
SEPARATORS = ("\t", "::", ",", ";", "|", " ")
SEPARATOR_OF_SUFFIX = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
PARQUET_SUFFIXES = (".parquet", ".pq")

Paths = str | os.PathLike | Iterable[str | os.PathLike]
Quote = str | Literal["auto"] | None
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Table:
    """One file or frame, opened lazily.

    Attributes:
      path: the file; for a frame, words for messages.
      names: its columns.
      frame: the lazy frame; in text files every column is String.
      rows: makes an iterator over (line number, fields) for messages, which raises ValueError at a
        faulty line; None for Parquet and frames. Fields are a dict by name, or a list in the order of
        ``names``.
      has_header: whether the names were read from the first line of a text file.
      lines: looks at all lines of a delimited file; None for the others, in which no row ends early.
      quoting: separator and quote of a delimited file in which quotes enclose fields.
    """

    path: Path
    names: list[str]
    frame: pl.LazyFrame
    rows: Callable[[], Iterator[tuple[int, list[str] | dict]]] | None
    has_header: bool = False
    lines: Callable[[], LineCounts] | None = None
    quoting: tuple[str, str] | None = None

    def batches(
        self, required: list[str], rows: int = BATCH_ROWS, *, ids: Sequence[str] = (), drop: bool = False
    ) -> Iterator[pl.DataFrame]:
        """The required columns, a batch of rows at a time, in file order, without nulls, NaN or empty text.

        Args:
          required: the columns.
          rows: of a batch.
          ids: those of them whose gaps may be left out.
          drop: whether rows with such a gap are left out; else they are an error.

        Raises ValueError naming file and line where a row is ragged, a value is missing, or the file
        cannot be read.
        """
        required = list(dict.fromkeys(required))
        watched = list(dict.fromkeys([*required, *(self.names[-1:] if self.lines else [])]))
        batches = self.frame.select(watched).collect_batches(chunk_size=rows)
        counts, looked = LineCounts(0, doubtful=False), False
        start, dropped, blank = 0, 0, 0
        while True:
            try:
                batch = next(batches, None)
            except (pl.exceptions.PolarsError, OSError) as error:
                self._explain(error)
            if batch is None:
                if blank > counts.blank and not (drop or counts.doubtful):  # rows of empty cells
                    self._find_missing(required)
                if dropped:
                    logger.info("%s: rows without a user or an item left out: %d", self.path, dropped)
                return
            batch = empty_as_null(batch)
            if any(batch[name].null_count() for name in watched):
                if self.lines and not looked:
                    counts, looked = self.lines(), True
                    if counts.doubtful:
                        self._find_missing(required, ids, drop)
                whole = len(batch)
                batch = self._without_blank(batch, watched)
                blank += whole - len(batch)
                self._refuse_gaps(batch, required, start, ids, drop)
            start += len(batch)
            if drop:
                complete = batch.drop_nulls(ids)
                dropped += len(batch) - len(complete)
                batch = complete
            yield batch.select(required)

    def collect(self, columns: dict[str, str]) -> pl.DataFrame:
        """Columns of all rows under the names of their roles; only ``columns["item"]`` must be filled."""
        try:
            frame = self.frame.select(pl.col(name).alias(role) for role, name in columns.items()).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            self._explain(error)
        frame = empty_as_null(frame)
        nulls = frame["item"].null_count()
        if nulls:
            counts = self.lines() if self.lines else LineCounts(0, doubtful=False)
            if counts.doubtful or nulls > counts.blank:
                self._find_missing([columns["item"]])
            frame = frame.filter(pl.col("item").is_not_null())
        return frame

    def _find_missing(self, required: Sequence[str], ids: Sequence[str] = (), drop: bool = False) -> None:
        """Raises ValueError naming the line of the first ragged row or gap of a text file, if there is one."""
        if self.rows is not None:
            columns = {name: self._key(name) for name in required}
            diagnosis.find_missing(self.path, self.rows(), columns, ids, drop)

    def _without_blank(self, batch: pl.DataFrame, watched: list[str]) -> pl.DataFrame:
        """Drops rows that are blank lines of a text file."""
        return batch if self.rows is None else batch.filter(~pl.all_horizontal(pl.col(watched).is_null()))

    def _refuse_gaps(
        self, batch: pl.DataFrame, required: list[str], start: int, ids: Sequence[str], drop: bool
    ) -> None:
        """Raises ValueError at a null, but for rows that ``batches`` leaves out."""
        kept = batch.select(~pl.any_horizontal(pl.col(ids).is_null())).to_series() if drop else None
        for name in required:
            nulls = batch[name].is_null() if kept is None else batch[name].is_null() & kept
            if nulls.any():
                self._find_missing(required, ids, drop)
                raise ValueError(
                    f"{self.path}: column {name} is null or empty in data row {start + nulls.arg_max() + 1}; "
                    f"fill it in or drop such rows{diagnosis.MISSING_DROP if name in ids else ''}"
                )

    def _explain(self, error: Exception) -> NoReturn:
        """Raises the ValueError that says what polars stumbled over."""
        if self.rows is not None:
            for _ in self.rows():
                pass
        if self.quoting:
            diagnosis.find_stray_quote(self.path, *self.quoting)
        reason = str(error).strip().splitlines()
        reason = reason[0] if reason else type(error).__name__
        advice = diagnosis.PLAIN_QUOTES if self.quoting else " or fetch it again"
        raise ValueError(f"{self.path} cannot be read: {reason}; mend the file{advice}") from error

    def _key(self, name: str) -> str | int:
        return name if format_suffix(self.path) in JSON_SUFFIXES else self.names.index(name)

    def refuse(self, column: str, value: object, wanted: str) -> NoReturn:
        """Raises the ValueError that says where ``column`` holds ``value``, which is not ``wanted``."""
        place = str(self.path)
        if self.rows is not None:
            key = self._key(column)
            for line, row in self.rows():
                found = row.get(key) if isinstance(row, dict) else row[key]
                if str(found).strip() == str(value).strip():
                    place += f", line {line}"
                    break
        raise ValueError(f"{place}: column {column} holds {value!r}, which is not {wanted}")


def empty_as_null(batch: pl.DataFrame) -> pl.DataFrame:
    """Text of no characters and NaN count as missing values."""
    empty = [
        column.name for column in batch if column.dtype == pl.String and (column.str.len_bytes() == 0).any()
    ]
    numbers = [column.name for column in batch if column.dtype.is_float() and column.is_nan().any()]
    if not (empty or numbers):
        return batch
    return batch.with_columns(pl.col(empty).replace("", None), pl.col(numbers).fill_nan(None))


def open_frame(frame: Frame) -> Table:
    """A frame as a table."""
    names = list(dict.fromkeys(frame_names(frame)))
    return Table(Path("the frame"), names, lazy_frame(frame, names), None)


def find_paths(path: Paths) -> list[Path]:
    """The files meant by a path, a pattern with ``*``, ``?`` or ``[...]``, or a list of these.

    Files of a pattern come sorted by name. Raises FileNotFoundError if there is no such file, ValueError
    for a frame.
    """
    if is_frame(path):
        raise ValueError(
            f"a {type(path).__name__} stands where files are expected; read_interactions takes one frame by "
            "itself (join several with polars.concat), other readers take files"
        )
    if not isinstance(path, (str, os.PathLike)):
        return list(itertools.chain.from_iterable(find_paths(part) for part in path))
    found = Path(path).expanduser()
    if found.is_file():
        return [found]
    if found.is_dir():
        raise ValueError(
            f"{found} is a directory; give the files in it, e.g. {os.fspath(found / '*.parquet')!r}"
        )
    matches = sorted(Path(match) for match in glob.glob(str(found)) if os.path.isfile(match))
    if not matches:
        raise FileNotFoundError(f"there is no file {found} (looked from {Path.cwd()}); check the path")
    return matches


def format_suffix(path: Path) -> str:
    """The suffix that tells the format, ``.gz`` left out, in lower case."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_table(path: Path, separator: str | None, quote: Quote, has_header: bool) -> Table:
    """Opens one file by its suffix; anything but Parquet and JSON lines is delimited text.

    Args:
      path: the file.
      separator: what stands between fields; None finds it in the first line.
      quote: the character around fields that hold a separator, or None where quotes are plain text; ``"auto"`` is the
        double quote, but where neither commas nor semicolons separate and some quote has no partner.
      has_header: whether the first line names the columns; else they are ``column_1``, ``column_2``, ...
    """
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; it should hold one interaction a line")
    suffix = format_suffix(path)
    if suffix in PARQUET_SUFFIXES:
        return _open_parquet(path)
    if suffix in JSON_SUFFIXES:
        return _open_json(path)
    if separator is None:
        separator = _find_separator(path)
    if quote == "auto":
        quote = _find_quote(path, separator)
    return _open_delimited(path, separator, quote, has_header)


def _open_parquet(path: Path) -> Table:
    source = io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix.lower() == ".gz" else path
    try:
        frame = pl.scan_parquet(source, glob=False)
        return Table(path, frame.collect_schema().names(), frame, None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet ({error}); is it complete?") from error


def _open_json(path: Path) -> Table:
    names: dict[str, None] = {}
    for _, row in itertools.islice(diagnosis.json_rows(path), 100):
        names.update(dict.fromkeys(row))
    if not names:
        raise ValueError(f"{path} is empty; it should hold one JSON object a line")
    frame = pl.scan_ndjson(glob.escape(str(path)), schema=dict.fromkeys(names, pl.String))
    return Table(path, list(names), frame, lambda: diagnosis.json_rows(path))


def _open_delimited(path: Path, separator: str, quote: str | None, has_header: bool) -> Table:
    step = 2 if separator == "::" else 1  # polars wants one character: "a::b" is a, nothing, b to it
    if len(separator) != step:
        raise ValueError(f"separator {separator!r} must be one character or '::'; convert {path} first")
    quote = None if step == 2 else quote
    skip, fields = diagnosis.first_fields(path, separator, quote, has_header)
    names = [field.strip() for field in fields] if has_header else [""] * len(fields)
    names = [
        name if name and name not in names[:place] else f"column_{place + 1}"
        for place, name in enumerate(names)
    ]
    frame = pl.scan_csv(
        path,
        separator=separator[0],
        quote_char=quote,
        has_header=False,
        skip_lines=skip,
        schema={f"{place}": pl.String for place in range(step * (len(fields) - 1) + 1)},
        glob=False,
    )
    return Table(
        path,
        names,
        frame.select(
            pl.col(f"{step * place}").str.strip_chars().alias(name) for place, name in enumerate(names)
        ),
        lambda: diagnosis.delimited_rows(path, separator, quote, len(fields), has_header),
        has_header,
        lambda: count_lines(path, separator, quote, len(fields), skip),
        (separator, quote) if quote else None,
    )


def _find_separator(path: Path) -> str:
    """The separator that the suffix promises, or else the first of ``SEPARATORS`` in the first line."""
    line = next((line for line in diagnosis.text_lines(path) if line.strip()), "")
    promised = SEPARATOR_OF_SUFFIX.get(format_suffix(path))
    if promised is not None and promised in line:
        return promised
    return next((separator for separator in SEPARATORS if separator in line), promised or ",")


def _find_quote(path: Path, separator: str) -> str | None:
    """The double quote, unless stray ones would join the lines of a file whose fields hardly need it."""
    quote = '"'
    if separator in ",;" or len(separator) > 1 or not has_odd_quotes(path, quote):
        return quote
    try:
        diagnosis.find_stray_quote(path, separator, quote)
    except (ValueError, csv.Error):
        return None
    return quote


__all__ = [
    "Paths",
    "Quote",
    "Table",
    "empty_as_null",
    "find_paths",
    "format_suffix",
    "open_frame",
    "open_table",
]
