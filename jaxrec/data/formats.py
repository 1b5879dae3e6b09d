"""Public data sets in the layouts that their publishers give them: MovieLens and Amazon reviews.

Thin settings of ``read_interactions``; the layouts are those of the publishers' README files
(GroupLens, grouplens.org/datasets/movielens; McAuley lab, amazon-reviews-2023.github.io and
jmcauley.ucsd.edu/data/amazon).
"""

import ast
import csv
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from jaxrec.data import diagnosis
from jaxrec.data.identifiers import IdMap
from jaxrec.data.interactions import Interactions
from jaxrec.data.items import ItemMetadata
from jaxrec.data.readers import Duplicates, read_interactions
from jaxrec.data.tables import Paths, find_paths, format_suffix

MOVIELENS_RATINGS = ("ratings.dat", "ratings.csv", "u.data")
NO_GENRES = "(no genres listed)"
ASIN = re.compile(r"[0-9B][0-9A-Z]{9}")
POSITIONAL = {"user": 0, "item": 1, "rating": 2, "time": 3, "has_header": False}


def read_movielens(
    path: str | os.PathLike,
    *,
    min_rating: float | None = None,
    duplicates: Duplicates = "warn",
    name: str | None = None,
) -> Interactions:
    """Reads any MovieLens release, with titles and genres if their file lies beside the ratings.

    Args:
      path: the unpacked folder, or the ratings file in it: ``u.data`` (100K), ``ratings.dat`` (1M, 10M) or
        ``ratings.csv`` (20M, 25M, 32M, latest).
      min_rating: interactions rated lower are left out.
      duplicates: as in ``read_interactions``.
      name: what the log is called in results; the folder's name if None.

    Raises FileNotFoundError if there is no ratings file, ValueError if a file is not as it should be.
    """
    path = Path(path).expanduser()
    ratings = path
    if path.is_dir():
        ratings = next((path / file for file in MOVIELENS_RATINGS if (path / file).is_file()), None)
        if ratings is None:
            raise FileNotFoundError(
                f"{path} holds none of {', '.join(MOVIELENS_RATINGS)}; unpack MovieLens there"
            )
    settings = {
        ".dat": POSITIONAL | {"separator": "::"},
        ".data": POSITIONAL | {"separator": "\t"},
    }.get(
        format_suffix(ratings), {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}
    )
    name = ratings.absolute().parent.name if name is None else name
    log = read_interactions(ratings, **settings, min_rating=min_rating, duplicates=duplicates, name=name)
    for file in ("movies.dat", "movies.csv", "u.item"):
        if (ratings.parent / file).is_file():
            return log.with_metadata(read_movielens_items(ratings.parent / file))
    return log


def read_movielens_items(path: str | os.PathLike) -> ItemMetadata:
    """Reads titles and genres: ``movies.dat``, ``movies.csv``, or ``u.item`` (with ``u.genre`` beside it).

    The older releases are Latin-1, the newer UTF-8; both are understood.
    """
    (path,) = find_paths(path)
    text = _decode(path)
    if path.name == "u.item":
        genres = [line.partition("|")[0] for line in _decode(path.with_name("u.genre")).splitlines() if line]
        rows = [
            (
                fields[0],
                fields[1],
                [genre for genre, flag in zip(genres, fields[5:], strict=True) if flag == "1"],
            )
            for fields in _split(path, text, "|", 5 + len(genres))
        ]
    elif format_suffix(path) == ".dat":
        rows = [(item, title, genres.split("|")) for item, title, genres in _split(path, text, "::", 3)]
    else:
        records = list(csv.reader(io.StringIO(text)))[1:]
        if any(len(record) < 3 for record in records):
            raise ValueError(f"{path} must have the columns movieId, title and genres; fetch it again")
        rows = [(record[0], record[1], record[2].split("|")) for record in records]
    try:
        item_ids = IdMap(pl.Series([int(item) for item, _, _ in rows], dtype=pl.Int64))
    except ValueError as error:
        raise ValueError(f"{path} has a movie id that is not an integer, or one twice ({error})") from error
    genres = [[genre for genre in row[2] if genre not in ("", NO_GENRES)] for row in rows]
    return ItemMetadata(
        item_ids, pl.Series([row[1] for row in rows]), pl.Series(genres, dtype=pl.List(pl.String))
    )


def _decode(path: Path) -> str:
    with diagnosis.open_bytes(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _split(path: Path, text: str, separator: str, width: int) -> Iterator[list[str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.rstrip("\r").split(separator)
        if len(fields) == width:
            yield fields
        elif line.strip():
            raise ValueError(f"{path}, line {number}: {len(fields)} fields where {width} are expected")


def read_amazon(
    path: Paths,
    *,
    min_rating: float | None = None,
    duplicates: Duplicates = "warn",
    name: str | None = None,
) -> Interactions:
    """Reads Amazon reviews of 2014, 2018 or 2023, plain or .gz.

    Understood are review files (JSON lines: ``reviewerID``/``asin``/``unixReviewTime``, or in 2023
    ``user_id``/``parent_asin``/``timestamp``), the rating files of 2023 (CSV with a header) and those
    of 2014 and 2018 (no header; the column with product codes is found by their form).

    Args:
      path: a file, a pattern or a list.
      min_rating: interactions rated lower are left out.
      duplicates: as in ``read_interactions``.
      name: what the log is called in results.
    """
    first = find_paths(path)[0]
    fields = _first_record(first)
    if "reviewerID" in fields:
        settings = {"user": "reviewerID", "item": "asin", "time": "unixReviewTime", "rating": "overall"}
    elif "user_id" in fields:
        settings = {"user": "user_id", "item": "parent_asin", "time": "timestamp", "rating": "rating"}
    elif len(fields) == 4 and bool(ASIN.fullmatch(fields[0])) != bool(ASIN.fullmatch(fields[1])):
        settings = POSITIONAL | ({"user": 1, "item": 0} if ASIN.fullmatch(fields[0]) else {})
    else:
        raise ValueError(f"{first} is in no known layout of Amazon reviews (it begins {list(fields)}); "
                         "name the columns in read_interactions (prepare.py: --format events --user ...)")  # fmt: skip
    return read_interactions(path, **settings, min_rating=min_rating, duplicates=duplicates, name=name)


def _first_record(path: Path) -> list[str]:
    """Keys of the first JSON object, or the fields of the first line."""
    if format_suffix(path) in (".json", ".jsonl"):
        for _, row in diagnosis.json_rows(path):
            return list(row)
    return diagnosis.first_fields(path, ",", '"', has_header=False)[1]


def read_amazon_items(path: str | os.PathLike, *, item_ids: IdMap | None = None) -> ItemMetadata:
    """Reads titles and categories from an Amazon metadata file (``meta_*.json.gz``, ``meta_*.jsonl``).

    Lines are JSON objects or, in 2014, Python literals. Categories come most general first; brand
    names are left out.

    Args:
      path: the file.
      item_ids: keep only these products (the files describe many more than a 5-core has); None keeps all.
    """
    (path,) = find_paths(path)
    wanted = None if item_ids is None else set(item_ids.values)
    rows: dict[str, tuple[str | None, list[str]]] = {}
    for number, line in enumerate(diagnosis.text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line) if not line.startswith("{'") else ast.literal_eval(line)
            item = record.get("parent_asin") or record["asin"]
        except (ValueError, SyntaxError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: no product record with an asin ({error})") from error
        if wanted is not None and item not in wanted:
            continue
        categories = record.get("categories") or record.get("category") or []
        rows.setdefault(item, (record.get("title"), list(dict.fromkeys(_flatten(categories)))))
    ids = pl.Series("id", list(rows), dtype=pl.String)
    titles = pl.Series([title for title, _ in rows.values()], dtype=pl.String)
    categories = pl.Series([names for _, names in rows.values()], dtype=pl.List(pl.String))
    metadata = ItemMetadata(IdMap.trusted(ids), titles, categories)
    return metadata if item_ids is None else metadata.align(item_ids)


def _flatten(categories: list | str) -> Iterator[str]:
    """The names in a category path, or in a list of paths."""
    if isinstance(categories, str):
        yield categories
        return
    for part in categories:
        yield from _flatten(part)


__all__ = ["read_amazon", "read_amazon_items", "read_movielens", "read_movielens_items"]
