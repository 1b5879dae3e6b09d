"""The k largest of many scores, exactly, ties to the lower place; fast on CPUs too."""

import jax
import jax.numpy as jnp

from jaxrec.typing import Array

BLOCK = 32


def top_k(scores: Array, k: int) -> tuple[Array, Array]:
    """The k largest scores of each row, in descending order, equal ones in ascending place.

    In two stages: the k blocks of ``BLOCK`` neighbours with the largest maxima (equal maxima: the earlier
    block) contain the k largest scores, for an item outside them is preceded by k maxima. Only the members
    of those blocks are then sorted.

    Args:
      scores: ``[B, W]`` float32, no NaN.
      k: at least 1; where W is smaller, the lists are filled up with -inf.

    Returns:
      Scores ``[B, k]`` float32 and places ``[B, k]`` int32 (in the filling: 0).
    """
    rows, width = scores.shape
    if k > width:
        values, places = jax.lax.top_k(scores, width)
        filling = ((0, 0), (0, k - width))
        return jnp.pad(values, filling, constant_values=-jnp.inf), jnp.pad(places, filling)
    if width < 2 * k * BLOCK:
        return jax.lax.top_k(scores, k)
    if width % BLOCK:
        scores = jnp.pad(scores, ((0, 0), (0, -width % BLOCK)), constant_values=-jnp.inf)
    blocks = scores.reshape(rows, scores.shape[1] // BLOCK, BLOCK)
    _, best_blocks = jax.lax.top_k(jnp.max(blocks, axis=-1), k)
    best_blocks = jnp.sort(best_blocks, axis=-1)
    members = jnp.take_along_axis(blocks, best_blocks[..., None], axis=1).reshape(rows, k * BLOCK)
    values, places = jax.lax.top_k(members, k)
    return values, jnp.take_along_axis(best_blocks, places // BLOCK, axis=1) * BLOCK + places % BLOCK


def merge_top_k(first: tuple[Array, Array], second: tuple[Array, Array], k: int) -> tuple[Array, Array]:
    """The k best of two lists of (scores, ids), each ``[B, *]``; equal scores keep the order given."""
    scores = jnp.concatenate([first[0], second[0]], axis=-1)
    ids = jnp.concatenate([first[1], second[1]], axis=-1)
    scores, places = jax.lax.top_k(scores, k)
    return scores, jnp.take_along_axis(ids, places, axis=-1)


def merge_parts(best: tuple[Array, Array], k: int, axis: str | None) -> tuple[Array, Array]:
    """The k best of the lists (scores, ids) ``[B, *]`` that the devices of a mesh axis hold, on each of them.

    Ids of an earlier device must be lower than those of a later one: equal scores then stand in ascending id.
    Unchanged if ``axis`` is ``None``.
    """
    if axis is None:
        return best
    scores, ids = (jax.lax.all_gather(part, axis, axis=1, tiled=True) for part in best)
    scores, places = top_k(scores, k)
    return scores, jnp.take_along_axis(ids, places, axis=-1)


__all__ = ["merge_parts", "merge_top_k", "top_k"]
