"""What a run answers, as frames under external ids."""

import numpy as np
import polars as pl

from jaxrec.data.identifiers import IdMap


def user_frame(user_ids: IdMap, users: np.ndarray, columns: dict[str, np.ndarray]) -> pl.DataFrame:
    """Values of users, one row each: ``user_id`` and the columns ``[n]``; ``users`` are rows ``[n]``."""
    names = user_ids.external(users).rename("user_id")
    return pl.DataFrame([names, *(pl.Series(name, values) for name, values in columns.items())])


__all__ = ["user_frame"]
