"""Frames of polars and pandas as lazy frames of polars."""

from typing import Any

import numpy as np
import polars as pl

Frame = Any
"""A polars DataFrame or LazyFrame, or a pandas DataFrame (which is not imported here: it is optional)."""


def is_frame(value: object) -> bool:
    """Whether a value is a polars frame, lazy or not, or a pandas frame."""
    return isinstance(value, pl.DataFrame | pl.LazyFrame) or (
        hasattr(value, "columns") and hasattr(value, "iloc")
    )


def frame_names(frame: Frame) -> list[str]:
    """The columns of a frame, as text."""
    names = frame.collect_schema().names() if isinstance(frame, pl.LazyFrame) else frame.columns
    return [str(name) for name in names]


def lazy_frame(frame: Frame, names: list[str]) -> pl.LazyFrame:
    """Columns of a frame by their names as text, as a lazy polars frame."""
    if isinstance(frame, pl.DataFrame | pl.LazyFrame):
        return frame.lazy().select(names)
    places = [frame_names(frame).index(name) for name in names]
    return pl.LazyFrame(
        [_pandas_column(name, frame.iloc[:, place]) for name, place in zip(names, places, strict=True)]
    )


def _pandas_column(name: str, values: Any) -> pl.Series:
    """A column of a pandas frame; polars' own way of text needs one more package."""
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iufb":
        return pl.Series(name, values.to_numpy())
    if values.dtype.kind == "M":
        return pl.Series(name, values.to_numpy("datetime64[us]"))
    cells = [_plain_cell(cell) for cell in values.astype(object).where(values.notna(), None)]
    series = pl.Series(name, cells, strict=False)
    if series.dtype != pl.Object:
        return series
    return pl.Series(name, [cell if cell is None else str(cell) for cell in cells], dtype=pl.String)


def _plain_cell(cell: Any) -> Any:
    """Arrays and tuples as lists, which polars understands."""
    cell = cell.tolist() if hasattr(cell, "tolist") else cell
    return list(cell) if isinstance(cell, tuple) else cell


__all__ = ["Frame", "frame_names", "is_frame", "lazy_frame"]
