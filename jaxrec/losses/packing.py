"""Packing the tokens of a loss into whole blocks, those that count first.

A loss that loops over blocks with a trip count known at run time then never computes the padding of a
batch. That is for CPUs: an accelerator would wait for its host before every block, and computes them all.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxrec.typing import Array, Dtype

Carry = TypeVar("Carry")


class Tokens(NamedTuple):
    """Tokens packed into whole blocks, those that count first.

    Attributes:
      query: ``[P, Q]`` in the compute type, P a multiple of the block.
      targets: ``[P, ...]`` int32.
      weights: ``[P]`` float32, 0 in the filling.
      places: ``[N]`` int32, where each token of the caller stands.
      num_blocks: scalar int32, blocks with a token of non-zero weight; on an accelerator, or if all tokens fit into
        one block, the Python integer of all blocks, whose tokens stand in the caller's order.
    """

    query: Array
    targets: Array
    weights: Array
    places: Array
    num_blocks: Array | int


def pack(query: Array, targets: Array, weights: Array, block: int, dtype: Dtype) -> Tokens:
    """Sorts the tokens that count to the front (stably; on CPUs) and fills up the last block."""
    count = query.shape[0]
    filling = -count % block
    places = jnp.arange(count)
    num_blocks = -(-count // block)
    if num_blocks > 1 and _counts_at_run_time():
        counts = weights != 0
        used = jnp.cumsum(counts)
        places = jnp.where(counts, used - 1, used[-1] + places - used)
        num_blocks = -(-used[-1] // block)
        order = jnp.zeros(count, jnp.int32).at[places].set(jnp.arange(count, dtype=jnp.int32))
        query, targets, weights = query[order], targets[order], weights[order]
    query = jnp.pad(query.astype(dtype), ((0, filling), (0, 0)))
    targets = jnp.pad(targets, [(0, filling)] + [(0, 0)] * (targets.ndim - 1))
    return Tokens(query, targets, jnp.pad(weights, (0, filling)), places, num_blocks)


def _counts_at_run_time() -> bool:
    return jax.default_backend() == "cpu"


def loop_blocks(tokens: Tokens, step: Callable[[Array | int, Carry], Carry], carry: Carry) -> Carry:
    """``carry = step(index, carry)`` over the blocks that count; without a loop if there is one block.

    A single block also needs no packing, so that a compiler can split the tokens over devices.
    """
    if isinstance(tokens.num_blocks, int) and tokens.num_blocks == 1:
        return step(0, carry)
    return jax.lax.fori_loop(0, tokens.num_blocks, step, carry)


def read_block(array: Array, index: Array | int, size: int) -> Array:
    """Rows ``index * size`` to ``(index + 1) * size``."""
    return jax.lax.dynamic_slice_in_dim(array, index * size, size)


def write_block(array: Array, part: Array, index: Array | int) -> Array:
    """Puts ``part`` where ``read_block(array, index, len(part))`` reads."""
    return jax.lax.dynamic_update_slice_in_dim(array, part, index * part.shape[0], 0)


__all__ = ["Tokens", "loop_blocks", "pack", "read_block", "write_block"]
