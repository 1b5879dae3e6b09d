"""Scores of queries against the catalogue, chunk by chunk: what ``recommend`` and evaluation share."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxrec.typing import Array

Carry = TypeVar("Carry")
Output = TypeVar("Output")

CPU_CELLS, ACCELERATOR_CELLS = 2**21, 2**27
"""Scores that exist at once; on CPUs so few that their memory is used again and again."""

FEWEST_ROWS = 32


class Catalogue(NamedTuple):
    """What is ranked, or this device's part of it.

    Attributes:
      table: ``[V, Q]`` float32, ``Recommender.items``; or a part of its rows.
      num_items: the items' ids are 1 to ``num_items``; a Python integer.
      allowed: ``[V]`` bool (for the same rows) or ``None``; False is never ranked.
      start: id of the table's first row.
      axis: the mesh axis over which the rows are split, with ids ascending; ``None`` if they are all here.
    """

    table: Array
    num_items: int
    allowed: Array | None = None
    start: Array | int = 0
    axis: str | None = None

    @classmethod
    def part(
        cls, table: Array, num_items: int, allowed: Array | None = None, *, axis: str | None
    ) -> "Catalogue":
        """Inside ``shard_map``: this device's part of the rows; the whole catalogue if ``axis`` is ``None``."""
        start = 0 if axis is None else jax.lax.axis_index(axis) * table.shape[0]
        return cls(table, num_items, allowed, start, axis)

    def find(self, items: Array) -> tuple[Array, Array | bool]:
        """Rows of the table where items (any shape, ids within the whole table) stand, and whether they do."""
        if self.axis is None:
            return items, True
        rows = items - self.start
        here = (rows >= 0) & (rows < self.table.shape[0])
        return jnp.where(here, rows, 0), here


def _cells() -> int:
    return CPU_CELLS if jax.default_backend() == "cpu" else ACCELERATOR_CELLS


def default_chunk(batch: int, rows: int) -> int:
    """Rows of the table to score at once for a batch that is not cut: few thousands at most on CPUs."""
    if batch * rows <= _cells():
        return rows
    return min(rows, max(128, 2 * _cells() // batch // 128 * 128))


def map_rows(
    function: Callable[..., Output], arrays: tuple[Array | None, ...], table_rows: int, chunk: int | None
) -> Output:
    """``function(*arrays)``, a block of the arrays' rows ``[B, ...]`` after the other.

    Blocks are of a size that scores against the whole table at once. Where that is impossible (a large
    catalogue), or ``chunk`` is set, the rows stay together and the table is cut instead.
    """
    batch = next(array.shape[0] for array in arrays if array is not None)
    fitting = _cells() // table_rows
    size = 1 << (fitting.bit_length() - 1) if fitting else 0
    if chunk is not None or size < FEWEST_ROWS or size >= batch:
        return function(*arrays)
    filling = -batch % size

    def cut(array: Array) -> Array:
        padded = jnp.pad(array, [(0, filling)] + [(0, 0)] * (array.ndim - 1))
        return padded.reshape(-1, size, *array.shape[1:])

    blocks = jax.lax.map(lambda parts: function(*parts), jax.tree.map(cut, arrays))
    return jax.tree.map(lambda parts: parts.reshape(-1, *parts.shape[2:])[:batch], blocks)


def query_scores(query: Array, rows: Array) -> Array:
    """``[B, R]`` float32 inner products in full float32, on every device."""
    return jax.lax.dot_general(
        query.astype(jnp.float32),
        rows.astype(jnp.float32),
        (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def exclude_places(scores: Array, places: Array) -> Array:
    """``scores`` ``[B, R]`` with -inf at ``places`` ``[B, S]``; places outside 0 to R - 1 are ignored."""
    width = scores.shape[1]
    places = jnp.where((places >= 0) & (places < width), places, width)
    rows = jnp.arange(scores.shape[0])[:, None]
    return scores.at[rows, places].set(-jnp.inf, mode="drop")


class ChunkedScores:
    """Scores of a batch of queries over the catalogue, of which one chunk exists at a time.

    What may not be ranked (padding, filling, ``allowed`` False, ``exclude``) scores -inf.
    """

    def __init__(
        self, query: Array, catalogue: Catalogue, exclude: Array | None = None, chunk: int | None = None
    ):
        """For queries ``[B, Q]`` and items to leave out ``[B, S]`` int32 (0: nothing)."""
        self.query, self.catalogue, self.exclude = query, catalogue, exclude
        rows = catalogue.table.shape[0]
        self.chunk = min(chunk or default_chunk(query.shape[0], rows), rows)
        self.num_chunks = -(-rows // self.chunk)
        self._whole = self._score(0, 0) if self.num_chunks == 1 else None

    def _score(self, start: Array | int, first: Array | int) -> Array:
        """Scores ``[B, chunk]`` of the rows from ``start``; those before row ``first`` are turned off."""
        table, num_items, allowed = self.catalogue[:3]
        ids = self.catalogue.start + start + jnp.arange(self.chunk)
        real = (ids >= jnp.maximum(self.catalogue.start + first, 1)) & (ids <= num_items)
        if allowed is not None:
            real &= jax.lax.dynamic_slice_in_dim(allowed, start, self.chunk)
        rows = jax.lax.dynamic_slice_in_dim(table, start, self.chunk)
        scores = query_scores(self.query, rows)
        if self.exclude is not None:
            # Before the mask: the scatter then works in place, and the mask melts into what reads it.
            scores = exclude_places(scores, self.exclude - (self.catalogue.start + start))
        return jnp.where(real, scores, -jnp.inf)

    def fold(self, step: Callable[[Carry, Array, Array | int], Carry], carry: Carry) -> Carry:
        """``carry = step(carry, scores, start)`` over the chunks, ids ascending; column c is item start + c.

        The last chunk is shifted back to end with the table; what it repeats scores -inf.
        """
        if self._whole is not None:
            return step(carry, self._whole, self.catalogue.start)
        last = self.catalogue.table.shape[0] - self.chunk

        def body(index, carry):
            first = index * self.chunk
            start = jnp.minimum(first, last)
            return step(carry, self._score(start, first), self.catalogue.start + start)

        return jax.lax.fori_loop(0, self.num_chunks, body, carry)


__all__ = ["Catalogue", "ChunkedScores", "default_chunk", "exclude_places", "map_rows", "query_scores"]
