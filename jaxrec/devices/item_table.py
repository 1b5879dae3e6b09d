"""The item table, whole or with its rows split over a mesh axis: who holds which rows, and how all read them.

Inside ``shard_map`` each of the n devices of the axis holds V / n consecutive rows. ``table_split_over`` says so
to everything traced within it: a model's lookups and losses then ask the devices that hold the rows, for their
own tokens only (the batch is spread over that axis too). Outside of it the same functions read a whole table.

Only ``all_gather`` and ``psum_scatter`` are differentiated, each the transpose of the other: the gradient of
the sum of all devices' losses arrives at every row, which ``psum`` would count several times under
``check_vma=False``.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from jaxrec.typing import Array

_axis: contextvars.ContextVar[str | None] = contextvars.ContextVar("item_table_axis", default=None)


@contextlib.contextmanager
def table_split_over(axis: str | None) -> Iterator[None]:
    """Declares, for what is traced inside the block (or the decorated function), how item tables are held.

    Args:
      axis: axis of ``shard_map`` over which their rows are split; ``None`` says that each device has all of them.
    """
    token = _axis.set(axis)
    try:
        yield
    finally:
        _axis.reset(token)


def table_axis() -> str | None:
    """The axis over which the rows are split here; ``None`` where tables are whole."""
    return _axis.get()


def is_item_table(path: tuple) -> bool:
    """Whether a leaf of parameters or optimizer state is an item table, by its path.

    It is if it is the ``table`` of a module named ``…_embedding`` (``nn.embedding.ItemEmbedding``), or has such
    an end to its path, as Adam's moments have.
    """
    names = [str(getattr(part, "key", "")) for part in path[-2:]]
    return len(names) == 2 and names[0].endswith("_embedding") and names[1] == "table"


def local_rows(rows: int) -> int:
    """How many of a table's rows this device holds."""
    axis = table_axis()
    return rows if axis is None else rows // jax.lax.axis_size(axis)


def first_row(axis: str | None, table: Array) -> Array | int:
    """The id of the first row of this device's part ``[V / n, ...]`` of a table."""
    return 0 if axis is None else jax.lax.axis_index(axis) * table.shape[0]


def held_rows(axis: str | None, table: Array, ids: Array) -> tuple[Array, Array]:
    """Rows of ``ids`` ``[...]`` that this device holds, ``[..., Q]``, and where they stand in its part.

    Rows of other devices are zeros; their place is out of range, so that a scatter with ``mode="drop"`` leaves
    them out.
    """
    if axis is None:
        return table[ids], ids
    local = ids - first_row(axis, table)
    held = (local >= 0) & (local < table.shape[0])
    rows = jnp.where(held[..., None], table[jnp.where(held, local, 0)], 0)
    return rows, jnp.where(held, local, table.shape[0])


def take_rows(table: Array, ids: Array) -> Array:
    """The rows ``[..., Q]`` of ``ids`` ``[...]`` int32, from whichever device holds them.

    Each device asks for its own ids; every device of the axis must ask at the same time, for as many.
    """
    axis = table_axis()
    if axis is None:
        return jnp.take(table, ids, axis=0)
    rows, _ = held_rows(axis, table, jax.lax.all_gather(ids, axis))
    return jax.lax.psum_scatter(rows, axis)


def gather_tokens(axis: str | None, tokens: Array) -> Array:
    """The tokens ``[N, ...]`` of each device of the axis, one after another: ``[n N, ...]`` on all of them."""
    return tokens if axis is None else jax.lax.all_gather(tokens, axis, tiled=True)


def own_tokens(axis: str | None, gathered: Array) -> Array:
    """This device's ``[N, ...]`` out of ``gather_tokens``."""
    if axis is None:
        return gathered
    count = gathered.shape[0] // jax.lax.axis_size(axis)
    return jax.lax.dynamic_slice_in_dim(gathered, jax.lax.axis_index(axis) * count, count)


def add_to_owners(axis: str | None, parts: Array) -> Array:
    """Adds what each device has for all gathered tokens ``[n N, ...]``; each gets its own ``[N, ...]``."""
    return parts if axis is None else jax.lax.psum_scatter(parts, axis, tiled=True)


__all__ = [
    "add_to_owners",
    "first_row",
    "gather_tokens",
    "held_rows",
    "is_item_table",
    "local_rows",
    "own_tokens",
    "table_axis",
    "table_split_over",
    "take_rows",
]
