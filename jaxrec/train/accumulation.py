"""The gradient of a batch made in parts, one after the other, and added up: the same step with fewer activations."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrec.batch import SequenceBatch
from jaxrec.devices.rows import rows_in_turn
from jaxrec.recommender import Recommender
from jaxrec.typing import Array, Params

Loss = Callable[[Params, SequenceBatch], tuple[Array, dict[str, Array]]]

TOKENS_IN_CACHE = 1024
"""What a CPU trains fastest at once where a token costs more than its share of the softmax (2 cores, D 128)."""
PAIRS_IN_CACHE = 10 * 200**2
"""Pairs of positions that a CPU attends over fastest at once, in the same sense, where histories are long."""
ITEMS_A_POSITION = 32
"""Up to so many items of the catalogue for each position of a window attention weighs as much as the softmax."""
SMALL_TABLE = 2**22
"""Numbers in an item table whose gradient is added part by part at little cost: 32,768 items of width 128."""


def default_parts(recommender: Recommender, batch: SequenceBatch, platform: str) -> int:
    """How many parts are wanted where the user does not say.

    A model that trains a target a window, over a moderate catalogue, spends its time in blocks of a transformer, whose
    activations of a whole batch leave a CPU's caches; another spends it in the softmax, unless its windows are long
    and the catalogue is small: then the weights of attention leave the caches.

    Args:
      recommender: its targets and the size of its item table count.
      batch: this device's rows ``[B, L]``.
      platform: kind of the devices, such as ``cpu``.
    """
    in_batch = getattr(getattr(recommender, "loss_function", None), "in_batch", False)
    large = recommender.num_items * getattr(recommender, "width", 1) > SMALL_TABLE
    if platform != "cpu" or in_batch or large:
        return 1
    length = batch.items.shape[-1]
    if recommender.target_positions == "last":
        return -(-batch.items.size // TOKENS_IN_CACHE)
    if recommender.num_items <= ITEMS_A_POSITION * length:
        return -(-batch.items.size * length // PAIRS_IN_CACHE)
    return 1


def parts_of(rows: int, wanted: int) -> int:
    """The largest divisor of ``rows`` that is at most ``wanted``."""
    return max(parts for parts in range(1, min(rows, wanted) + 1) if rows % parts == 0)


def value_and_gradient(
    loss: Loss, params: Params, batch: SequenceBatch, parts: int
) -> tuple[tuple[Array, dict[str, Array]], Params]:
    """What ``jax.value_and_grad(loss, has_aux=True)`` gives, its sums taken over the parts of the batch.

    Args:
      loss: function from parameters and rows to a sum over the rows, and further such sums.
      params: parameters, with respect to which the gradient is taken.
      batch: rows ``[B, L]`` of this device.
      parts: how many; must divide B.
    """
    function = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        return function(params, batch)

    def add(total: Params, numbered: tuple[Array, SequenceBatch]):
        index, part = numbered
        with rows_in_turn(index, parts):
            sums, gradient = function(params, part)
        return jax.tree.map(jnp.add, total, gradient), sums

    split = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), batch)
    zeros = jax.tree.map(jnp.zeros_like, params)
    gradient, sums = jax.lax.scan(add, zeros, (jnp.arange(parts, dtype=jnp.int32), split))
    return jax.tree.map(functools.partial(jnp.sum, axis=0), sums), gradient


__all__ = [
    "PAIRS_IN_CACHE",
    "SMALL_TABLE",
    "TOKENS_IN_CACHE",
    "default_parts",
    "parts_of",
    "value_and_gradient",
]
