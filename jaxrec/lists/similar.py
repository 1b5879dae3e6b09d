"""Items beside items: their vectors in the ranking space, and the nearest of each by cosine."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxrec.devices.sharding import WHOLE, constrain, place, place_params, several_devices
from jaxrec.lists.recommending import TopK, best_items
from jaxrec.lists.scoring import Catalogue, ChunkedScores, map_rows
from jaxrec.recommender import Recommender, constant_columns
from jaxrec.typing import Array, Params

ITEMS_AT_ONCE = 2048
FEWEST_ITEMS = 128


def item_vectors(recommender: Recommender, params: Params, mesh: Mesh | None = None) -> np.ndarray:
    """``[num_items, D]`` float32: the items in the ranking space, in the order of their ids.

    Columns that hold parts of the score, such as STOSA's norms (``jaxrec.recommender.constant_columns``), are left out.
    """
    table = _vectors(recommender, False, *_placed(params, mesh))
    return np.asarray(table)[1 : recommender.num_items + 1]


def similar_items(
    recommender: Recommender,
    params: Params,
    items: np.ndarray,
    *,
    k: int,
    allowed: np.ndarray,
    mesh: Mesh | None = None,
) -> TopK:
    """The k items with the highest cosine to each of n items, as numpy arrays ``[n, K]``; never the item itself.

    Args:
      recommender: the model.
      params: its parameters.
      items: int32 ``[n]``, ids from 1.
      k: length of the lists.
      allowed: ``[V]`` bool, items that may be found.
      mesh: devices on which ``params`` lie; each of them does the whole work.
    """
    if not len(items):
        empty = np.zeros((0, k), np.float32)
        return TopK(empty.astype(np.int32), empty, empty.astype(bool))
    params, mesh = _placed(params, mesh)
    table = _vectors(recommender, True, params, mesh)
    allowed = jax.device_put(allowed) if mesh is None else place(allowed, mesh, WHOLE)
    size = min(ITEMS_AT_ONCE, max(FEWEST_ITEMS, 1 << (len(items) - 1).bit_length()))
    parts = []
    for start in range(0, len(items), size):
        block = items[start : start + size].astype(np.int32)
        block = np.pad(block, (0, size - len(block)))  # few shapes: lists of other lengths share a program
        block = block if mesh is None else place(block, mesh, WHOLE)
        parts.append(jax.device_get(_nearest(k, recommender.num_items, mesh, table, block, allowed)))
    found = [np.concatenate(part)[: len(items)] for part in zip(*(part[:3] for part in parts), strict=True)]
    return TopK(*found)


def _placed(params: Params, mesh: Mesh | None) -> tuple[Params, Mesh | None]:
    mesh = several_devices(mesh)
    return (params if mesh is None else place_params(params, mesh)), mesh


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def _vectors(recommender: Recommender, unit: bool, params: Params, mesh: Mesh | None) -> Array:
    """``[V, D]`` float32, of length 1 with ``unit`` (a vector of zeros stays)."""
    vectors = recommender.items(params)[:, constant_columns(recommender) :].astype(jnp.float32)
    if unit:
        norms = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
        vectors = vectors / jnp.where(norms > 0, norms, 1.0)
    return constrain(vectors, mesh, WHOLE)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _nearest(k: int, num_items: int, mesh: Mesh | None, table: Array, items: Array, allowed: Array) -> TopK:
    catalogue = Catalogue(table, num_items, allowed)

    def nearest(query: Array, exclude: Array) -> TopK:
        return best_items(ChunkedScores(query, catalogue, exclude), k)

    return constrain(map_rows(nearest, (table[items], items[:, None]), table.shape[0], None), mesh, WHOLE)


__all__ = ["item_vectors", "similar_items"]
