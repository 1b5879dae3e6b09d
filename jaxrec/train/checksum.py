"""A checksum of device arrays that does not depend on how they are spread over devices and processes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.data.shuffling import mix
from jaxrec.typing import Array


def checksum(tree: Any) -> int:
    """A number below 2**32 that changes with any one element of any array of a tree (and very likely with several).

    Each array's bits, as unsigned words, are mixed with their places and added modulo 2**32: mixing has an inverse,
    so one changed word changes the sum, and the order of adding, which the spreading decides, does not. All
    processes call it.
    """
    sums = jax.device_get([_sum(leaf) for leaf in jax.tree.leaves(tree)])
    result = 0
    for value in map(int, sums):
        result = (result * 0x01000193 + value) % 2**32
    return result


@jax.jit
def _sum(leaf: Array) -> Array:
    """The sum of the mixed words of one array, a uint32 scalar; compiled once a shape, of which a state has few."""
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    width = min(np.dtype(leaf.dtype).itemsize, 4)  # wider elements become several words
    words = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * width}")).astype(jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return jnp.sum(mix(words ^ mix(place, jnp), jnp), dtype=jnp.uint32)


__all__ = ["checksum"]
