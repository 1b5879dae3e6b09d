"""What is known of the items besides who took them: titles and categories."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from jaxrec.data.identifiers import IdMap


@dataclasses.dataclass(frozen=True, eq=False)
class ItemMetadata:
    """Titles and categories of items.

    Row r describes the item ``item_ids`` row r; in the metadata of an ``Interactions`` that is the
    item with the internal id r + 1 (``align`` brings rows into that order).

    Attributes:
      item_ids: external ids of the items described.
      titles: ``[n]`` String (a list is converted), null where there is none.
      categories: ``[n]`` List(String), most general first as the source has them; empty where there is none.
    """

    item_ids: IdMap
    titles: pl.Series
    categories: pl.Series

    def __post_init__(self):
        object.__setattr__(self, "titles", _series("title", self.titles, pl.String()))
        categories = _series("categories", self.categories, pl.List(pl.String))
        if categories.null_count():
            categories = categories.fill_null(pl.Series([[]], dtype=pl.List(pl.String)))
        object.__setattr__(self, "categories", categories)
        if not len(self.item_ids) == len(self.titles) == len(self.categories):
            raise ValueError(
                f"item metadata needs one title and one list of categories an item, and has "
                f"{len(self.item_ids)} ids, {len(self.titles)} titles, {len(self.categories)} lists"
            )

    def __len__(self) -> int:
        return len(self.item_ids)

    def __repr__(self) -> str:
        titles = len(self.titles) - self.titles.null_count()
        return (
            f"ItemMetadata({len(self):,} items, {titles:,} titles, {len(self.category_names):,} categories)"
        )

    @property
    def _flat(self) -> pl.Series:
        """The categories of all items, one after the other."""
        return self.categories.filter(self.categories.list.len() > 0).explode()

    @property
    def category_names(self) -> pl.Series:
        """The distinct categories, sorted."""
        return self._flat.unique().sort()

    def align(self, item_ids: IdMap) -> "ItemMetadata":
        """The same facts in the order of ``item_ids``; items without a row get no title and no category."""
        if item_ids is self.item_ids:
            return self
        rows = self.item_ids.lookup(item_ids.values)
        picked = pl.Series(np.where(rows < 0, len(self), rows))
        titles = pl.concat([self.titles, pl.Series([None], dtype=pl.String)])
        categories = pl.concat([self.categories, pl.Series([[]], dtype=pl.List(pl.String))])
        return ItemMetadata(item_ids, titles.gather(picked), categories.gather(picked))

    def take(self, rows: np.ndarray, item_ids: IdMap) -> "ItemMetadata":
        """The rows given, described as the items of ``item_ids`` (one id a row)."""
        return ItemMetadata(item_ids, self.titles.gather(rows), self.categories.gather(rows))

    def category_table(self) -> tuple[np.ndarray, np.ndarray]:
        """Categories as numbers, for a catalogue of any size.

        Returns:
          ``offsets [num_items + 2]`` int64 and ``categories [total]`` int32: item id i (0 is padding
          and has none) has ``categories[offsets[i]:offsets[i + 1]]``, places in ``category_names``.
        """
        lengths = self.categories.list.len().to_numpy().astype(np.int64)
        offsets = np.concatenate([np.zeros(2, np.int64), np.cumsum(lengths)])
        numbers = self.category_names.search_sorted(self._flat).to_numpy()
        return offsets, numbers.astype(np.int32)

    def save(self, path: Path | str) -> None:
        """Writes titles and categories into an arrow IPC file; the ids are kept by the log."""
        pl.DataFrame([self.titles, self.categories]).write_ipc(path, compression="uncompressed")

    @classmethod
    def open(cls, path: Path | str, item_ids: IdMap) -> "ItemMetadata":
        """Reads what ``save`` wrote, memory-mapped."""
        frame = pl.read_ipc(path)
        return cls(item_ids, frame["title"], frame["categories"])


def _series(name: str, values: pl.Series | Sequence, dtype: pl.DataType) -> pl.Series:
    series = values if isinstance(values, pl.Series) else pl.Series(name, values, dtype=dtype)
    return series.cast(dtype).rename(name)


__all__ = ["ItemMetadata"]
