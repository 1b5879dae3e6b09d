"""Where a text file is at fault: a slow second look that finds the line, for one clear sentence."""

import csv
import gzip
import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

GZIP_MAGIC = b"\x1f\x8b"
PLAIN_QUOTES = ", or pass quote=None (--quote none of prepare.py) if quotes are ordinary text"
MISSING_DROP = ", or leave such rows out with missing='drop' (--missing drop of prepare.py)"


def open_bytes(path: Path) -> BinaryIO:
    """The file's content, unpacked if it begins as gzip does."""
    with open(path, "rb") as file:
        packed = file.read(2) == GZIP_MAGIC
    return gzip.open(path, "rb") if packed else open(path, "rb")


def text_lines(path: Path) -> Iterator[str]:
    """Lines of a text file; raises ValueError naming the line that is not UTF-8 or where unpacking fails."""
    number = 0
    with open_bytes(path) as file:
        try:
            for line in file:
                number += 1
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{path}, line {number}: byte {error.start + 1} of the line (0x"
                        f"{line[error.start]:02x}) is not UTF-8; convert the file to UTF-8 (iconv does)"
                    ) from error
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path} cannot be unpacked beyond line {number} ({error}); the gzip file is damaged or cut "
                "short, fetch it again"
            ) from error


def delimited_rows(
    path: Path, separator: str, quote: str | None, width: int, has_header: bool
) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of a delimited file without blank lines; ValueError at a ragged row."""
    for number, row in _split_rows(path, separator, quote):
        if not "".join(row).strip() and len(row) <= 1:
            continue
        if has_header:
            has_header = False
            continue
        if len(row) != width:
            raise ValueError(
                f"{path}, line {number}: {len(row)} fields where {width} are expected"
                f" ({separator.join(row)[:80]!r}); mend or remove the line"
            )
        yield number, row


def _split_rows(path: Path, separator: str, quote: str | None) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each row, and its fields."""
    if quote is None:
        for number, line in enumerate(text_lines(path), start=1):
            yield number, line.rstrip("\r\n").split(separator)
        return
    reader = csv.reader(text_lines(path), delimiter=separator, quotechar=quote)
    number = 1
    try:
        for row in reader:
            yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {number}: {error}; mend the line{PLAIN_QUOTES}") from error


def json_rows(path: Path) -> Iterator[tuple[int, dict]]:
    """Line numbers and objects of a JSON-lines file; raises ValueError at a line that holds none."""
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error}); mend or remove the line") from error
        if not isinstance(value, dict):
            raise ValueError(f"{path}, line {number}: a JSON object is expected, not {line.strip()[:80]!r}")
        yield number, value


def find_missing(
    path: Path,
    rows: Iterator[tuple[int, Sequence | dict]],
    columns: dict[str, str | int],
    ids: Collection[str] = (),
    drop: bool = False,
) -> None:
    """Raises ValueError at the first row without a value in one of ``columns`` (name: key in the row).

    ``ids`` are those columns whose gaps ``missing="drop"`` is about; with ``drop`` a row with such a gap is
    passed over.
    """
    for number, row in rows:
        empty = [name for name, key in columns.items() if _is_empty(row, key)]
        if not empty or (drop and not set(ids).isdisjoint(empty)):
            continue
        raise ValueError(
            f"{path}, line {number}: column {empty[0]} is empty; fill it in or remove the line"
            f"{MISSING_DROP if empty[0] in ids else ''}"
        )


def _is_empty(row: Sequence | dict, key: str | int) -> bool:
    value = row.get(key) if isinstance(row, dict) else row[key]
    return value is None or (isinstance(value, str) and not value.strip())


def find_stray_quote(path: Path, separator: str, quote: str) -> None:
    """Raises ValueError at the first quote without a partner, if there is one.

    It stands in a line with an odd number of quotes, and has not been opened to hold a line break: a field that holds
    a separator besides is taken for several lines that the quote has joined.
    """
    lines: list[str] = []

    def kept() -> Iterator[str]:
        for line in text_lines(path):
            lines.append(line)
            yield line

    number = 1
    for row in csv.reader(kept(), delimiter=separator, quotechar=quote):
        joined = any("\n" in field and separator in field for field in row)
        if joined or (len(lines) == 1 and lines[0].count(quote) % 2):
            raise ValueError(
                f"{path}, line {number}: a quote without its partner ({lines[0].strip()[:80]!r}); mend the line"
                f"{PLAIN_QUOTES}"
            )
        number += len(lines)
        lines.clear()


def first_fields(path: Path, separator: str, quote: str | None, has_header: bool) -> tuple[int, list[str]]:
    """The fields of the first line that is not blank; ValueError if there is none.

    Returns:
      How many lines (blank ones, the header) come before the first row of data, and the fields.
    """
    rows = (
        found
        for found in _split_rows(path, separator, quote)
        if len(found[1]) > 1 or "".join(found[1]).strip()
    )
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path} is empty; it should hold one interaction a line")
    number, fields = first
    if has_header:
        number = next(rows, (number + 1, None))[0]
    return number - 1, fields


__all__ = [
    "delimited_rows",
    "find_missing",
    "find_stray_quote",
    "first_fields",
    "json_rows",
    "open_bytes",
    "text_lines",
]
