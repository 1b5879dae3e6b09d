"""What a run answers, as frames under external ids."""

import numpy as np
import polars as pl

from jaxrec.data.identifiers import IdMap
from jaxrec.data.items import ItemMetadata


def user_frame(user_ids: IdMap, users: np.ndarray, columns: dict[str, np.ndarray]) -> pl.DataFrame:
    """Values of users, one row each: ``user_id`` and the columns ``[n]``; ``users`` are rows ``[n]``."""
    names = user_ids.external(users).rename("user_id")
    return pl.DataFrame([names, *(pl.Series(name, values) for name, values in columns.items())])


def similar_frame(
    item_ids: IdMap,
    items: np.ndarray,
    found: np.ndarray,
    scores: np.ndarray,
    valid: np.ndarray,
    metadata: ItemMetadata | None = None,
) -> pl.DataFrame:
    """Lists ``[n, K]`` beside items ``[n]`` as a frame ``item_id, similar_item_id, score``.

    ``title``, of the found, follows where metadata is given. Places that are not valid are left out.
    """
    row, place = np.nonzero(valid)
    return _with_titles(
        [
            item_ids.external(items[row] - 1).rename("item_id"),
            item_ids.external(found[row, place] - 1).rename("similar_item_id"),
            pl.Series("score", scores[row, place]),
        ],
        found[row, place],
        metadata,
    )


def score_frame(
    users: pl.Series,
    item_ids: IdMap,
    rows: np.ndarray,
    items: np.ndarray,
    scores: np.ndarray,
    metadata: ItemMetadata | None = None,
) -> pl.DataFrame:
    """Pairs ``[P]`` of a row of ``users`` and an item as a frame ``user_id, item_id, score``, with ``title``."""
    return _with_titles(
        [
            users.gather(rows).rename("user_id"),
            item_ids.external(items - 1).rename("item_id"),
            pl.Series("score", scores),
        ],
        items,
        metadata,
    )


def _with_titles(columns: list[pl.Series], items: np.ndarray, metadata: ItemMetadata | None) -> pl.DataFrame:
    if metadata is not None:
        columns.append(metadata.titles.gather(items - 1).rename("title"))
    return pl.DataFrame(columns)


__all__ = ["score_frame", "similar_frame", "user_frame"]
