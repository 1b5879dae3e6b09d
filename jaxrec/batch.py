"""Batches of right-aligned item sequences, and random keys that follow a sequence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.typing import Array, PRNGKey

PADDING_ID = 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SequenceBatch:
    """Training rows, right-aligned: the newest item stands in the last column.

    Attributes:
      items: ``[B, L]`` int32, the history; 0 is padding and stands left of the items.
      targets: ``[B, L]`` int32, ``targets[b, i]`` is the item that followed ``items[b, i]``.
      weights: ``[B, L]`` float32, how much each target counts in the loss; 0 where there is none.
    """

    items: Array
    targets: Array
    weights: Array


def right_align(histories, length: int) -> np.ndarray:
    """Packs histories (oldest first) into ``[B, length]`` int32, keeping the newest items of each."""
    rows = np.zeros((len(histories), length), np.int32)
    for row, history in zip(rows, histories, strict=True):
        newest = np.asarray(history, np.int32)[-length:]
        if len(newest):
            row[-len(newest) :] = newest
    return rows


def sequence_hash(items: Array) -> Array:
    """A 32-bit hash of each row that padding on the left does not change.

    A polynomial in an odd constant modulo 2**32, lowest power at the right end, so that a history
    hashes alike in every length bucket.

    Args:
      items: ``[B, L]`` int32, right-aligned, 0 is padding.

    Returns:
      ``[B]`` uint32.
    """
    length = items.shape[-1]
    powers = np.ones(length, np.uint32)
    for place in range(length - 2, -1, -1):
        powers[place] = np.uint32((int(powers[place + 1]) * 0x9E3779B1) & 0xFFFFFFFF)
    mixed = items.astype(jnp.uint32) * jnp.uint32(0x85EBCA6B)
    mixed = mixed ^ (mixed >> 15)
    return jnp.sum(mixed * powers, axis=-1, dtype=jnp.uint32)


def row_keys(key: PRNGKey, items: Array) -> PRNGKey:
    """One key a row, a function of ``key`` and of that row's items alone: ``[B]`` keys.

    So a stochastic model gives a user the same list alone, in any batch, in any length bucket and
    on any number of devices.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, sequence_hash(items))


__all__ = ["PADDING_ID", "SequenceBatch", "right_align", "row_keys", "sequence_hash"]
