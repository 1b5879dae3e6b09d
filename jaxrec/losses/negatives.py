"""Losses over negatives drawn for each token: the draws, and a gradient of bounded memory.

The rows of the negatives are gathered block by block; the gradient is made in the same pass and added
into the table's gradient in place, so that neither ``[N, K, Q]`` nor a table for every block is held.
"""

import functools
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxrec.devices.item_table import add_to_owners, gather_tokens, held_rows, own_tokens
from jaxrec.devices.random_bits import row_integers
from jaxrec.losses.packing import loop_blocks, pack, read_block, write_block
from jaxrec.typing import Array, PRNGKey

GATHER_BYTES = {"cpu": 2**25, "accelerator": 2**28}
"""Most bytes of gathered rows at once."""


class ScoreLoss(Protocol):
    """A hashable loss that sees scores only; ``block`` tokens at once, or ``None``."""

    block: int | None

    def from_scores(self, positive: Array, negative: Array, num_items: int) -> Array:
        """Each token's loss ``[N]`` from its scores ``[N]`` and ``[N, K]``."""
        ...


def draw_negatives(key: PRNGKey, targets: Array, count: int, num_items: int) -> Array:
    """Uniform draws from the items other than each token's target: ``[N, count]`` int32.

    The tokens are those of this device's rows; a token draws the same items on any number of devices.

    Raises:
      ValueError: if there is no other item.
    """
    if num_items < 2:
        raise ValueError(f"negatives need a catalogue of at least 2 items, this one has {num_items}")
    drawn = row_integers(key, (*targets.shape, count), 1, num_items)
    return drawn + (drawn >= jnp.where(targets == 0, num_items, targets)[..., None])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def negative_sampling_loss(
    loss: ScoreLoss,
    num_items: int,
    axis: str | None,
    query: Array,
    items: Array,
    targets: Array,
    negatives: Array,
    weights: Array,
) -> Array:
    """The sum over tokens of weight · loss(scores), a float32 scalar.

    Args:
      loss: turns scores into losses.
      num_items: how many items the catalogue has.
      axis: mesh axis over which the rows of ``items`` are split, see ``item_table``; the total's cotangent must
        then be the same on all its devices.
      query: ``[N, Q]``, this device's tokens.
      items: ``[V, Q]``, or this device's rows of it.
      targets: ``[N]`` int32.
      negatives: ``[N, K]`` int32.
      weights: ``[N]`` float32.
    """
    return _forward(loss, num_items, axis, query, items, targets, negatives, weights)[0]


def _forward(loss, num_items, axis, query, items, targets, negatives, weights):
    candidates = jnp.concatenate([targets[:, None], negatives], axis=1)
    own_weights = weights
    query, candidates, weights = (gather_tokens(axis, array) for array in (query, candidates, weights))
    count, width = query.shape
    row_bytes = 4 * width * (negatives.shape[1] + 1)
    most = GATHER_BYTES["cpu" if jax.default_backend() == "cpu" else "accelerator"]
    block = min(count, loss.block or max(1, most // row_bytes))
    tokens = pack(query, candidates, weights, block, jnp.float32)

    def losses_of(scores):
        return loss.from_scores(scores[:, 0], scores[:, 1:], num_items)

    def step(index, carry):
        losses, to_query, to_items = carry
        part, ids = read_block(tokens.query, index, block), read_block(tokens.targets, index, block)
        rows, places = held_rows(axis, items, ids)
        rows = rows.astype(jnp.float32)
        scores = jnp.sum(part[:, None, :] * rows, axis=-1)
        if axis is not None:
            scores = jax.lax.psum(scores, axis)  # one device holds the row, the others have added 0
        part_losses, pull_back = jax.vjp(losses_of, scores)
        (to_scores,) = pull_back(read_block(tokens.weights, index, block))
        to_query = write_block(to_query, jnp.sum(to_scores[..., None] * rows, axis=1), index)
        to_items = to_items.at[places].add(to_scores[..., None] * part[:, None, :], mode="drop")
        return write_block(losses, part_losses, index), to_query, to_items

    zeros = jnp.zeros(tokens.weights.shape, jnp.float32)
    carry = (zeros, jnp.zeros(tokens.query.shape, jnp.float32), jnp.zeros(items.shape, jnp.float32))
    losses, to_query, to_items = loop_blocks(tokens, step, carry)
    losses = jnp.where(own_weights != 0, own_tokens(axis, losses[tokens.places]), 0.0)
    to_query = add_to_owners(axis, to_query[tokens.places])
    gradients = (to_query.astype(query.dtype), to_items.astype(items.dtype))
    return jnp.sum(own_weights * losses), (losses, gradients)


def _backward(loss, num_items, axis, saved, cotangent):
    del loss, num_items, axis
    losses, gradients = saved
    to_query, to_items = ((gradient * cotangent).astype(gradient.dtype) for gradient in gradients)
    return to_query, to_items, None, None, losses * cotangent


negative_sampling_loss.defvjp(_forward, _backward)

__all__ = ["ScoreLoss", "draw_negatives", "negative_sampling_loss"]
