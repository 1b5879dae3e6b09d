"""Where a device's rows stand in a batch that several devices share.

A draw for a row must follow the row and not the device that holds it, or training would depend on how many
devices there are. The step says over which mesh axes the rows of a batch are split; what draws for a row
(``random_bits``) or counts over the batch asks here, while it is traced.
"""

import contextlib
import contextvars
import math
from collections.abc import Iterator

import jax

from jaxrec.typing import Array

_row_axes: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("row_axes", default=())


@contextlib.contextmanager
def rows_split_over(axes: str | tuple[str, ...] | None) -> Iterator[None]:
    """Declares, for what is traced inside the block, over which named axes the rows of a batch are split.

    Every device holds equally many rows, consecutive ones; with several axes the last runs fastest. An inner
    block replaces an outer one. What is traced inside must not be taken from jit's cache outside.

    Args:
      axes: of ``shard_map`` or ``pmap``; ``None`` or ``()`` says that each device sees the whole batch.
    """
    names = (axes,) if isinstance(axes, str) else tuple(axes or ())
    token = _row_axes.set(names)
    try:
        yield
    finally:
        _row_axes.reset(token)


def row_part() -> Array | int:
    """Which part of the rows this device holds: int32 scalar, or the Python integer 0 if it holds them all.

    The first of its B rows is row ``row_part() * B`` of the batch.
    """
    axes = _row_axes.get()
    if math.prod(jax.lax.axis_size(axis) for axis in axes) == 1:
        return 0
    return jax.lax.axis_index(axes)


def gather_rows(array: Array) -> Array:
    """The array of the whole batch, on every device, from each one's rows ``[B, ...]``."""
    for axis in reversed(_row_axes.get()):
        array = jax.lax.all_gather(array, axis, tiled=True)
    return array


__all__ = ["gather_rows", "row_part", "rows_split_over"]
