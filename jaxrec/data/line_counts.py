"""A quick look at all lines of a delimited file: whether a row may end early, and how many lines are blank.

polars fills up a row that ends early with nulls, and gives a row of nulls for a blank line, so that neither can be
told from empty cells. This tells them apart in one pass in bounded memory; which line is at fault, ``diagnosis`` says.
"""

import re
from pathlib import Path
from typing import NamedTuple

import polars as pl

NO_SEPARATOR = "\x1f"
"""ASCII's own separator, which text does not hold; rows of a file that does are looked at one by one."""


class LineCounts(NamedTuple):
    """What a file's lines look like.

    Attributes:
      blank: lines without anything.
      doubtful: whether a row may end early. It is also True where quotes go over several lines or the file cannot be
        read so: then only a reader of single rows knows.
    """

    blank: int
    doubtful: bool


def count_lines(path: Path, separator: str, quote: str | None, width: int, skip: int) -> LineCounts:
    """Looks at all lines after the first ``skip``; a whole row has ``width`` fields."""
    frame = _lines(path, skip)
    line = pl.col("line").fill_null("")
    mark = re.escape(quote or "")
    outside_quotes = line if quote is None else line.str.replace_all(f"{mark}[^{mark}]*{mark}", "")
    separators = outside_quotes.str.count_matches(separator, literal=True)
    blank = (separators == 0) & (line.str.strip_chars().str.len_bytes() == 0)
    doubtful = ~blank & (separators < width - 1)
    if quote is not None:
        doubtful |= line.str.count_matches(quote, literal=True) % 2 == 1
    try:
        found = frame.select(blank.sum().alias("blank"), doubtful.any().alias("doubtful")).collect(
            engine="streaming"
        )
    except (pl.exceptions.PolarsError, OSError):
        return LineCounts(0, doubtful=True)
    return LineCounts(*found.row(0))


def has_odd_quotes(path: Path, quote: str) -> bool:
    """Whether some line has an odd number of quotes; also where the file cannot be read so."""
    odd = pl.col("line").fill_null("").str.count_matches(quote, literal=True) % 2 == 1
    try:
        return _lines(path, 0).select(odd.any()).collect(engine="streaming").item()
    except (pl.exceptions.PolarsError, OSError):
        return True


def _lines(path: Path, skip: int) -> pl.LazyFrame:
    """All lines of a text file after the first ``skip``, as one column."""
    return pl.scan_csv(
        path,
        separator=NO_SEPARATOR,
        quote_char=None,
        has_header=False,
        skip_lines=skip,
        schema={"line": pl.String},
        glob=False,
    )


__all__ = ["LineCounts", "count_lines", "has_odd_quotes"]
