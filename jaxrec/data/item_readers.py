"""Titles, categories and ids of items from files of any common kind."""

from pathlib import Path
from typing import Any

import polars as pl

from jaxrec.data import diagnosis
from jaxrec.data.columns import choose_column
from jaxrec.data.encoding import IdEncoder, number_by_appearance
from jaxrec.data.identifiers import IdMap
from jaxrec.data.items import ItemMetadata
from jaxrec.data.tables import JSON_SUFFIXES, Paths, Table, find_paths, format_suffix, open_table

Column = str | int | None
ITEMS_ADVICE = "name it with item=... (--items-id of prepare.py, --data.items-id of train.py)"


def read_items(
    path: Paths,
    *,
    item: Column = None,
    title: Column = None,
    categories: Column = None,
    separator: str | None = None,
    has_header: bool = True,
    category_separator: str = "|",
) -> ItemMetadata:
    """Reads titles and categories: ``item<TAB>title<TAB>categories`` with a header, or any other table.

    Columns are found by name or place as in ``read_interactions``; others are ignored. Title and
    categories may be empty, or their columns missing; where several columns could be the title (or the categories),
    the first of ``title``, ``name``, ``item_name``, ``movie_title``, ``description`` (of ``categories``,
    ``category``, ``genres``, ``genre``) is taken. Of several rows of an item the first counts.

    Args:
      path: a file, a pattern, or a list of these.
      item, title, categories: columns; None guesses from common names.
      separator: between the fields of a text file; None takes it from the first line.
      has_header: whether the first line names the columns.
      category_separator: what joins the categories of an item in one text; lists, in Parquet and JSON lines, are
        taken as they are.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is empty or damaged, the column of the items is missing or could be several, or a row has no item.
    """
    frames = []
    for file in find_paths(path):
        table = open_table(file, separator, _usual_quote(file), has_header)
        columns = {"item": _item_column(table, item, ITEMS_ADVICE)}
        for role, given in (("title", title), ("categories", categories)):
            columns[role] = choose_column(
                table.path, table.names, role, given, required=False, take_first=True
            )
        frame = table.collect({role: name for role, name in columns.items() if name is not None})
        if "categories" in frame.columns:
            cells = frame["categories"].rename(columns["categories"])
            lists = _category_lists(cells, category_separator, file)
            frame = frame.with_columns(lists.alias("categories"))
        frames.append(frame)
    frame = pl.concat(frames, how="diagonal").unique("item", keep="first", maintain_order=True)
    encoder = IdEncoder()
    encoder.add(frame["item"])
    codes, ids = encoder.finish()
    titles = frame["title"] if "title" in frame.columns else pl.Series([None] * len(frame), dtype=pl.String)
    lists = pl.Series([[]] * len(frame), dtype=pl.List(pl.String))
    if "categories" in frame.columns:
        lists = frame["categories"]
    return ItemMetadata(IdMap.trusted(ids.gather(codes)), titles, lists)


def read_item_ids(path: Paths, *, item: Column = None, advice: str | None = None) -> pl.Series:
    """The external ids of a table of items, each once, in the order of the rows; other columns are not read.

    Args:
      path: a file, a pattern, or a list of these, as for ``read_items``.
      item: the column; None guesses from common names.
      advice: what a message tells the caller to do where the guess fails; None says to name the column.

    Raises:
      FileNotFoundError, ValueError: as ``read_items``.
    """
    encoder = IdEncoder()
    for file in find_paths(path):
        table = open_table(file, None, _usual_quote(file), has_header=True)
        encoder.add(table.collect({"item": _item_column(table, item, advice)})["item"])
    codes, ids = encoder.finish()
    return number_by_appearance(codes, ids)[1].values


def _category_lists(cells: pl.Series, separator: str, file: Path) -> pl.Series:
    """Categories as lists of text, from such lists or from texts that are joined."""
    if cells.dtype == pl.String and format_suffix(file) in JSON_SUFFIXES and cells.str.starts_with("[").any():
        # What polars makes of a list in a column of text is no JSON.
        values = (row.get(cells.name) for _, row in diagnosis.json_rows(file))
        lists = [value.split(separator) if isinstance(value, str) else _texts(value) for value in values]
        cells = pl.Series(lists, dtype=pl.List(pl.String))
    elif cells.dtype == pl.String:
        cells = cells.str.split(separator)
    return cells.list.eval(pl.element().filter(pl.element().str.len_bytes() > 0))


def _texts(value: Any) -> list[str]:
    """The texts in a JSON value: of a list those of its parts, of null none."""
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return [] if value is None else [str(value)]


def _usual_quote(file: Path) -> str | None:
    """Titles hold quotes of their own."""
    return '"' if format_suffix(file) == ".csv" else None


def _item_column(table: Table, given: Column, advice: str | None) -> str:
    return choose_column(table.path, table.names, "item", given, advice=advice)


__all__ = ["read_item_ids", "read_items"]
