"""Where a device's rows stand in a batch that several devices share.

A draw for a row must follow the row and not the device that holds it, or training would depend on how many
devices there are, or on whether a device takes its rows one part after the other. The step says how the rows of
a batch are split; what draws for a row (``random_bits``) or counts over the batch asks here, while it is traced.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator

import jax

from jaxrec.typing import Array

_row_axes: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("row_axes", default=())
_turn: contextvars.ContextVar[tuple[Array | int, int]] = contextvars.ContextVar("turn", default=(0, 1))


@contextlib.contextmanager
def rows_split_over(axes: str | tuple[str, ...] | None) -> Iterator[None]:
    """Declares, for what is traced inside the block, over which named axes the rows of a batch are split.

    Every device holds equally many rows, consecutive ones; with several axes the last runs fastest. An inner
    block replaces an outer one. What is traced inside must not be taken from jit's cache outside.

    Args:
      axes: axes of ``shard_map`` or ``pmap``; ``None`` or ``()`` says that each device sees the whole batch.
    """
    names = (axes,) if isinstance(axes, str) else tuple(axes or ())
    token = _row_axes.set(names)
    try:
        yield
    finally:
        _row_axes.reset(token)


@contextlib.contextmanager
def rows_in_turn(index: Array | int, count: int) -> Iterator[None]:
    """Declares that what is traced inside the block gets one of ``count`` equal parts of this device's rows.

    Args:
      index: which one, from 0; the parts are consecutive rows.
      count: how many there are.
    """
    token = _turn.set((index, count))
    try:
        yield
    finally:
        _turn.reset(token)


def row_part() -> Array | int:
    """Which part of the rows these are: int32 scalar, or the Python integer 0 if they are all.

    The first of the B rows at hand is row ``row_part() * B`` of the batch.
    """
    axes, (index, count) = _row_axes.get(), _turn.get()
    if math.prod(jax.lax.axis_size(axis) for axis in axes) == 1:
        return index
    return jax.lax.axis_index(axes) * count + index


def gather_rows(array: Array) -> Array:
    """The array of the whole batch, on every device, from each one's rows ``[B, ...]``.

    Raises:
      ValueError: the device has only a part of its rows at hand.
    """
    if _turn.get()[1] > 1:
        raise ValueError(
            "the loss compares each row with all rows of the batch (in-batch negatives), so its gradient cannot be made"
            " in parts; set train.accumulate to 1"
        )
    for axis in reversed(_row_axes.get()):
        array = jax.lax.all_gather(array, axis, tiled=True)
    return array


__all__ = ["gather_rows", "row_part", "rows_in_turn", "rows_split_over"]
