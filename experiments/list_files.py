"""Writing recommendation lists portion by portion, in the format that a file's ending names."""

import gzip
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import polars as pl

TEXT_FORMATS = (".csv", ".tsv", ".jsonl")
FORMATS = (*TEXT_FORMATS, ".parquet")


def list_format(path: Path) -> str:
    """The ending that decides the format.

    Raises:
      ValueError: it is none of those known.
    """
    ending = Path(path.name.removesuffix(".gz")).suffix
    if ending not in FORMATS or (ending == ".parquet" and path.suffix == ".gz"):
        raise ValueError(
            f"{path}: recommendations are written as {', '.join(FORMATS)} (text also .gz); give a name"
            " that ends so"
        )
    return ending


def write_lists(path: Path, frames: Iterable[pl.DataFrame]) -> int:
    """Writes frames of equal columns into one file, one after the other; returns the number of rows.

    The file appears once it is whole; one that was there before is replaced then.

    Raises:
      ValueError: the ending names no known format.
      OSError: it cannot be written.
    """
    ending = list_format(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        partial = Path(folder) / path.name
        rows = (
            _write_parquet(partial, frames) if ending == ".parquet" else _write_text(partial, ending, frames)
        )
        os.replace(partial, path)
    return rows


def _write_text(path: Path, ending: str, frames: Iterable[pl.DataFrame]) -> int:
    rows = 0
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        for place, frame in enumerate(frames):
            if ending == ".jsonl":
                frame.write_ndjson(file)
            else:
                frame.write_csv(file, include_header=place == 0, separator="\t" if ending == ".tsv" else ",")
            rows += len(frame)
    return rows


def _write_parquet(path: Path, frames: Iterable[pl.DataFrame]) -> int:
    """Each portion into a file of its own, and these streamed into one."""
    rows, parts = 0, path.with_suffix(".parts")
    parts.mkdir()
    for place, frame in enumerate(frames):
        frame.write_parquet(parts / f"{place:08d}.parquet")
        rows += len(frame)
    pl.scan_parquet(sorted(parts.iterdir())).sink_parquet(path)
    return rows


__all__ = ["FORMATS", "list_format", "write_lists"]
