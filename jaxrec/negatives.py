"""Losses over negatives drawn for each token: the draws, and a gradient of bounded memory.

The rows of the negatives are gathered block by block; the gradient is made in the same pass and added
into the table's gradient in place, so that neither ``[N, K, Q]`` nor a table for every block is held.
"""

import functools
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxrec.packing import loop_blocks, pack, read_block, write_block
from jaxrec.typing import Array, PRNGKey

GATHER_BYTES = 2**25


class ScoreLoss(Protocol):
    """A hashable loss that sees scores only; ``block`` tokens at once, or ``None``."""

    block: int | None

    def from_scores(self, positive: Array, negative: Array, num_items: int) -> Array:
        """Each token's loss ``[N]`` from its scores ``[N]`` and ``[N, K]``."""
        ...


def draw_negatives(key: PRNGKey, targets: Array, count: int, num_items: int) -> Array:
    """Uniform draws from the items other than each token's target: ``[N, count]`` int32.

    Raises:
      ValueError: if there is no other item.
    """
    if num_items < 2:
        raise ValueError(f"negatives need a catalogue of at least 2 items, this one has {num_items}")
    drawn = jax.random.randint(key, (*targets.shape, count), 1, num_items, jnp.int32)
    return drawn + (drawn >= jnp.where(targets == 0, num_items, targets)[..., None])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def negative_sampling_loss(
    loss: ScoreLoss,
    num_items: int,
    query: Array,
    items: Array,
    targets: Array,
    negatives: Array,
    weights: Array,
) -> Array:
    """The sum over tokens of weight · loss(scores), a float32 scalar.

    Args:
      loss: turns scores into losses.
      num_items: of the catalogue.
      query: ``[N, Q]``.
      items: ``[V, Q]``.
      targets: ``[N]`` int32.
      negatives: ``[N, K]`` int32.
      weights: ``[N]`` float32.
    """
    return _forward(loss, num_items, query, items, targets, negatives, weights)[0]


def _forward(loss, num_items, query, items, targets, negatives, weights):
    count, width = query.shape
    row_bytes = 4 * width * (negatives.shape[1] + 1)
    block = min(count, loss.block or max(1, GATHER_BYTES // row_bytes))
    candidates = jnp.concatenate([targets[:, None], negatives], axis=1)
    tokens = pack(query, candidates, weights, block, jnp.float32)

    def losses_of(scores):
        return loss.from_scores(scores[:, 0], scores[:, 1:], num_items)

    def step(index, carry):
        losses, to_query, to_items = carry
        part, ids = read_block(tokens.query, index, block), read_block(tokens.targets, index, block)
        rows = items[ids].astype(jnp.float32)
        part_losses, pull_back = jax.vjp(losses_of, jnp.sum(part[:, None, :] * rows, axis=-1))
        (to_scores,) = pull_back(read_block(tokens.weights, index, block))
        to_query = write_block(to_query, jnp.sum(to_scores[..., None] * rows, axis=1), index)
        to_items = to_items.at[ids].add(to_scores[..., None] * part[:, None, :])
        return write_block(losses, part_losses, index), to_query, to_items

    zeros = jnp.zeros(tokens.weights.shape, jnp.float32)
    carry = (zeros, jnp.zeros(tokens.query.shape, jnp.float32), jnp.zeros(items.shape, jnp.float32))
    losses, to_query, to_items = loop_blocks(tokens, step, carry)
    losses = jnp.where(weights != 0, losses[tokens.places], 0.0)
    gradients = (to_query[tokens.places].astype(query.dtype), to_items.astype(items.dtype))
    return jnp.sum(weights * losses), (losses, gradients)


def _backward(loss, num_items, saved, cotangent):
    del loss, num_items
    losses, gradients = saved
    to_query, to_items = ((gradient * cotangent).astype(gradient.dtype) for gradient in gradients)
    return to_query, to_items, None, None, losses * cotangent


negative_sampling_loss.defvjp(_forward, _backward)

__all__ = ["ScoreLoss", "draw_negatives", "negative_sampling_loss"]
