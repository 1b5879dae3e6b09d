"""The Steam reviews and games of the McAuley lab: files of Python literals, one a line.

Layout: the fields are those of the publisher's page (cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data).
Lines such as ``{u'username': u'ann', u'product_id': u'10', u'date': u'2017-12-17', …}`` are no JSON. The few
fields wanted of the 7.8 million reviews are cut out by a pattern that follows the grammar field by field;
lines that it does not understand to their end go through ``ast.literal_eval``, several times slower.
"""

import ast
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from jaxrec.data.diagnosis import text_lines
from jaxrec.data.identifiers import IdMap
from jaxrec.data.interactions import Interactions
from jaxrec.data.items import ItemMetadata
from jaxrec.data.readers import Duplicates, read_interactions
from jaxrec.data.tables import find_paths

REVIEW_FIELDS = ("username", "product_id", "date")
_FIELD = re.compile(
    r"""u?'(\w+)':[ ](u?'[^'\\]*(?:\\.[^'\\]*)*'|u?"[^"\\]*(?:\\.[^"\\]*)*"|[-+.\w]+)(?:,[ ]|(\})$)"""
)


def read_steam(
    path: str | os.PathLike, *, duplicates: Duplicates = "warn", name: str | None = None
) -> Interactions:
    """Reads ``steam_reviews.json.gz``: users are user names, items product ids, times days.

    Reviews that lack one of the three are left out. They are written once more, as JSON lines, into a
    temporary file beside the source (about a tenth of its unpacked size) and read from there.

    Raises FileNotFoundError if there is no file, ValueError (with the line) if one is no literal.
    """
    (path,) = find_paths(path)
    name = path.name.split(".")[0] if name is None else name
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        plain = Path(folder) / "reviews.jsonl"
        count = 0
        with plain.open("w", encoding="utf-8") as file:
            for record in literal_lines(path, REVIEW_FIELDS):
                kept = {field: str(record.get(field) or "") for field in REVIEW_FIELDS}
                if all(kept.values()):
                    file.write(json.dumps(kept) + "\n")
                    count += 1
        if not count:
            raise ValueError(f"{path} holds no review with {', '.join(REVIEW_FIELDS)}; fetch it again")
        return read_interactions(
            plain, user="username", item="product_id", time="date", duplicates=duplicates, name=name
        )


def read_steam_items(path: str | os.PathLike) -> ItemMetadata:
    """Reads ``steam_games.json.gz``: titles, and genres as categories."""
    (path,) = find_paths(path)
    rows: dict[str, tuple[str | None, list[str]]] = {}
    for record in literal_lines(path):
        if record.get("id"):
            title = record.get("title") or record.get("app_name")
            rows.setdefault(str(record["id"]), (title, list(record.get("genres") or [])))
    titles = pl.Series([title for title, _ in rows.values()], dtype=pl.String)
    genres = pl.Series([names for _, names in rows.values()], dtype=pl.List(pl.String))
    return ItemMetadata(IdMap.trusted(pl.Series("id", list(rows), dtype=pl.String)), titles, genres)


def literal_lines(path: Path, wanted: tuple[str, ...] | None = None) -> Iterator[dict]:
    """The dicts of a file that holds one Python literal a line; ValueError, with the line, if one is none.

    Args:
      path: the file, plain or .gz.
      wanted: fields to keep, which must hold text or numbers; None keeps all, of any kind.
    """
    for number, line in enumerate(text_lines(path), start=1):
        line = line.strip()
        if not line:
            continue
        record = None if wanted is None else _cut_out(line, wanted)
        yield _evaluate(path, number, line) if record is None else record


def _cut_out(line: str, wanted: tuple[str, ...]) -> dict | None:
    """The wanted fields of a flat literal; None if the line is not understood to its end."""
    record, place, closed = {}, 1, False
    while not closed:
        field = _FIELD.match(line, place)
        if field is None:
            return None
        if field[1] in wanted:
            text = field[2].removeprefix("u")
            if text[0] not in "'\"" or "\\" in text:
                try:
                    record[field[1]] = ast.literal_eval(field[2])
                except (ValueError, SyntaxError):
                    return None
            else:
                record[field[1]] = text[1:-1]
        place, closed = field.end(), field[3] is not None
    return record if line[0] == "{" else None


def _evaluate(path: Path, number: int, line: str) -> dict:
    try:
        record = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(
            f"{path}, line {number}: not a Python literal ({error}); fetch the file again"
        ) from error
    if not isinstance(record, dict):
        raise ValueError(
            f"{path}, line {number}: not a dict of fields but {record!r:.60}; fetch the file again"
        )
    return record


__all__ = ["literal_lines", "read_steam", "read_steam_items"]
