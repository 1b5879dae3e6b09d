"""Scores of queries against the catalogue, chunk by chunk: what ``recommend`` and evaluation share."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxrec.typing import Array

Carry = TypeVar("Carry")

CPU_SCORES_BYTES = 2**24
ACCELERATOR_SCORES_BYTES = 2**29


class Catalogue(NamedTuple):
    """What is ranked.

    Attributes:
      table: ``[V, Q]`` float32, ``Recommender.items``.
      num_items: rows 1 to ``num_items`` are items; a Python integer.
      allowed: ``[V]`` bool or ``None``; False is never ranked.
    """

    table: Array
    num_items: int
    allowed: Array | None = None


def default_chunk(batch: int, rows: int) -> int:
    """Rows of the table to score at once, so that ``[batch, chunk]`` float32 stays small."""
    on_cpu = jax.default_backend() == "cpu"
    budget = CPU_SCORES_BYTES if on_cpu else ACCELERATOR_SCORES_BYTES
    return min(rows, max(128, budget // (4 * batch) // 128 * 128))


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
        table, num_items, allowed = self.catalogue
        ids = start + jnp.arange(self.chunk)
        real = (ids >= jnp.maximum(first, 1)) & (ids <= num_items)
        if allowed is not None:
            real &= jax.lax.dynamic_slice_in_dim(allowed, start, self.chunk)
        rows = jax.lax.dynamic_slice_in_dim(table, start, self.chunk)
        scores = jnp.where(real, query_scores(self.query, rows), -jnp.inf)
        return scores if self.exclude is None else exclude_places(scores, self.exclude - start)

    def fold(self, step: Callable[[Carry, Array, Array | int], Carry], carry: Carry) -> Carry:
        """``carry = step(carry, scores, start)`` over the chunks, ids ascending; column c is item start + c.

        The last chunk is shifted back to end with the table; what it repeats scores -inf.
        """
        if self._whole is not None:
            return step(carry, self._whole, 0)
        last = self.catalogue.table.shape[0] - self.chunk

        def body(index, carry):
            first = index * self.chunk
            start = jnp.minimum(first, last)
            return step(carry, self._score(start, first), start)

        return jax.lax.fori_loop(0, self.num_chunks, body, carry)


__all__ = ["Catalogue", "ChunkedScores", "default_chunk", "exclude_places", "query_scores"]
