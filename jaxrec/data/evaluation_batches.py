"""Batches of whole histories for evaluation and bulk recommendation: few shapes, padded, every row once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

SEEN_CELLS = 1 << 22
ROW_MULTIPLE = 8


class EvaluationBatch(NamedTuple):
    """Rows of one shape; the real ones come first.

    Attributes:
      items: ``[B, L]`` int32, the newest items of each history, right-aligned, 0 is padding.
      targets: ``[B]`` int32; all 0 in a batch of histories without targets.
      seen: ``[B, S]`` int32, the whole history, right-aligned, 0 is padding; S is 0 if not asked for.
      weights: ``[B]`` float32, 1, and 0 in the padding of the last batch of a shape.
      rows: ``[B]`` int64, which row of the caller it is; -1 in the padding.
    """

    items: np.ndarray
    targets: np.ndarray
    seen: np.ndarray
    weights: np.ndarray
    rows: np.ndarray


def history_batches(
    items: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    *,
    lengths: Sequence[int],
    batch_size: int = 256,
    pairs: int | None = None,
    with_seen: bool = True,
    devices: int = 1,
) -> Iterator[EvaluationBatch]:
    """Batches of histories, shortest first; row r's history is ``items[starts[r]:ends[r]]``.

    L is one of ``lengths`` (``windows.bucket_lengths`` of the model), S the same or, for histories longer than the
    last of them, a power of two. A shape with less than a batch of rows joins the next longer one, so that
    few programs are compiled.

    Args:
      items: int32 ``[N]``, the flat log (may be memory-mapped).
      starts: int64 ``[n]``.
      ends: int64 ``[n]``; equal to the start for an empty history.
      lengths: to which histories are padded, ascending; the last is the longest window that the model reads.
      batch_size: B; less for histories so long that ``[B, S]`` would be large.
      pairs: the largest B L^2, what attention compares; ``None`` is any number. Never makes B less than 8.
      with_seen: whether whole histories are wanted.
      devices: that share each batch; B is rounded up to a multiple of them.
    """
    for name, number in (("batch_size", batch_size), ("pairs", pairs), ("devices", devices)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}; it must be at least 1")
    starts, ends = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
    sizes = ends - starts
    if np.any(sizes < 0):
        row = int(np.argmax(sizes < 0))
        raise ValueError(
            f"row {row} has a history from {starts[row]} to {ends[row]}: it ends before it starts"
        )
    widths = _widths(list(lengths), int(sizes.max(initial=0)) if with_seen else 0)
    shape_of_row = np.searchsorted(widths[:-1], sizes, side="left")
    order = np.argsort(shape_of_row, kind="stable")
    borders = np.searchsorted(shape_of_row[order], np.arange(len(widths) + 1))
    first = 0
    for width, end in zip(widths, borders[1:], strict=True):
        if width != widths[-1] and end - first < batch_size:
            continue
        group, first = order[first:end], end
        length = min(width, lengths[-1])
        fitting = batch_size if pairs is None else min(batch_size, _multiple(pairs // length**2))
        count = -(-_batch_rows(len(group), fitting, width) // devices) * devices
        for begin in range(0, len(group), count):
            rows = np.full(count, -1, np.int64)
            part = group[begin : begin + count]
            rows[: len(part)] = part
            yield _batch(items, starts, ends, rows, length, width if with_seen else 0)


def evaluation_batches(
    items: np.ndarray,
    starts: np.ndarray,
    positions: np.ndarray,
    *,
    lengths: Sequence[int],
    batch_size: int = 256,
    pairs: int | None = None,
    with_seen: bool = True,
    devices: int = 1,
) -> Iterator[EvaluationBatch]:
    """``history_batches`` with targets: row r's history is ``items[starts[r]:positions[r]]``.

    Its target is ``items[positions[r]]``; the arguments are those of ``history_batches``.
    """
    positions = np.asarray(positions, np.int64)
    for batch in history_batches(
        items,
        starts,
        positions,
        lengths=lengths,
        batch_size=batch_size,
        pairs=pairs,
        with_seen=with_seen,
        devices=devices,
    ):
        real = batch.rows >= 0
        targets = np.zeros(len(real), np.int32)
        targets[real] = items[positions[batch.rows[real]]]
        yield batch._replace(targets=targets)


def _widths(widths: list[int], longest: int) -> list[int]:
    while widths[-1] < longest:
        widths = [*widths, 1 << widths[-1].bit_length()]
    return widths


def _batch_rows(rows: int, batch_size: int, width: int) -> int:
    """Rows of a batch: about as many as there are, and few where histories are very long.

    A power of two, so that lists for varying numbers of users need few programs; a single person waits for one row.
    """
    few = 1 if rows == 1 else max(ROW_MULTIPLE, 1 << (rows - 1).bit_length())
    return max(1, min(batch_size, few, max(ROW_MULTIPLE, SEEN_CELLS // width)))


def _multiple(rows: int) -> int:
    """The multiple of ``ROW_MULTIPLE`` that is not above ``rows``, but at least one of it."""
    return max(1, rows // ROW_MULTIPLE) * ROW_MULTIPLE


def _batch(
    items: np.ndarray, starts: np.ndarray, ends: np.ndarray, rows: np.ndarray, length: int, seen: int
) -> EvaluationBatch:
    real = rows >= 0
    starts, ends = np.where(real, starts[rows], 0), np.where(real, ends[rows], 0)
    whole = _newest(items, starts, ends, max(seen, length))
    newest = whole[:, whole.shape[1] - length :]
    return EvaluationBatch(
        newest, np.zeros(len(rows), np.int32), whole[:, :seen], real.astype(np.float32), rows
    )


def _newest(items: np.ndarray, starts: np.ndarray, ends: np.ndarray, width: int) -> np.ndarray:
    """``[B, width]`` int32, the newest items of each history, right-aligned."""
    places = ends[:, None] - width + np.arange(width)
    real = places >= starts[:, None]
    if not real.any():
        return np.zeros(real.shape, np.int32)
    return np.where(real, items[np.where(real, places, 0)], 0).astype(np.int32)


__all__ = ["EvaluationBatch", "evaluation_batches", "history_batches"]
