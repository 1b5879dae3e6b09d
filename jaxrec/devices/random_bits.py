"""Cheap random numbers for what training draws in bulk: dropout masks, noise, time steps, negatives.

JAX's default generator (threefry, 20 rounds and 64 bits for every 32 used) costs more on a CPU than the
matrix products of a small transformer. Here the two words of a key seed a counter hash that an elementwise
loop computes on the fly: two rounds of the 32-bit mixing function with low bias of Wellons (2018,
"lowbias32", public domain constants). A value depends on the key and on its own index alone, so neither the
sharding nor the shape around it changes it. Initial values and what is drawn at inference keep threefry, but for
the Λ of diffusion recommenders.

The ``row_`` functions draw for the rows of a batch: along the leading axis stand this device's rows (or the
tokens of these rows, one after the other), and the values are those that one device would draw for the same
rows of the whole batch (``rows.rows_split_over``).
"""

import math

import jax
import jax.numpy as jnp

from jaxrec.devices.rows import row_part
from jaxrec.typing import Array, PRNGKey


def _mix(word: Array) -> Array:
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    return word ^ (word >> 16)


def hash_bits(key: PRNGKey, counter: Array) -> Array:
    """32 random bits for each value of a counter.

    Args:
      key: one key, or an array of keys whose axes are the leading axes of the result.
      counter: uint32; of any shape for one key, else of the shape that follows the keys' axes.

    Returns:
      uint32 of shape ``key.shape + counter.shape``.
    """
    words = jax.random.key_data(key)
    words = words.reshape(key.shape + (1,) * counter.ndim + words.shape[-1:])
    started = _mix(counter ^ words[..., 0] ^ jnp.uint32(0x9E3779B9))
    return _mix(started + words[..., -1])


def hash_normal(key: PRNGKey, counter: Array) -> Array:
    """A standard normal float32 for each value of a counter; arguments as for ``hash_bits``."""
    # 23 bits, centred: an odd integer over 2**23 lies strictly between -1 and 1 and is exact in float32.
    centred = (hash_bits(key, counter) >> 9).astype(jnp.int32) * 2 - (2**23 - 1)
    return jnp.float32(2**0.5) * jax.lax.erf_inv(centred.astype(jnp.float32) * jnp.float32(2.0**-23))


def counters(shape: tuple[int, ...]) -> Array:
    """0, 1, 2, … in row-major order, uint32 of ``shape``."""
    total = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        total += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride & 0xFFFFFFFF)
        stride *= shape[axis]
    return total


def row_counters(shape: tuple[int, ...]) -> Array:
    """``counters`` of the whole batch, at this device's rows: uint32 of ``shape``, which is that of the part."""
    part = row_part()
    if isinstance(part, int) and part == 0:
        return counters(shape)
    return counters(shape) + jnp.asarray(part, jnp.uint32) * jnp.uint32(math.prod(shape) & 0xFFFFFFFF)


def row_normal(key: PRNGKey, shape: tuple[int, ...]) -> Array:
    """N(0, 1) float32 of ``shape``, for this device's rows."""
    return hash_normal(key, row_counters(shape))


def row_uniform(key: PRNGKey, shape: tuple[int, ...]) -> Array:
    """Uniform in [0, 1), multiples of 2**-24, float32 of ``shape``, for this device's rows."""
    return (hash_bits(key, row_counters(shape)) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


def row_bernoulli(key: PRNGKey, probability: float, shape: tuple[int, ...]) -> Array:
    """True with a probability, bool of ``shape``, for this device's rows."""
    return row_uniform(key, shape) < probability


def row_integers(key: PRNGKey, shape: tuple[int, ...], start: int, stop: int) -> Array:
    """Uniform in start, …, stop − 1, int32 of ``shape``, for this device's rows.

    By the remainder of 32 bits: the probabilities of two values differ by at most 2**-32.
    """
    return start + (hash_bits(key, row_counters(shape)) % jnp.uint32(stop - start)).astype(jnp.int32)


__all__ = [
    "counters",
    "hash_bits",
    "hash_normal",
    "row_bernoulli",
    "row_counters",
    "row_integers",
    "row_normal",
    "row_uniform",
]
