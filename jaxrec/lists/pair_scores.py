"""Scores of given pairs of a history and an item, without lists: a batch of histories after the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxrec.data.evaluation_batches import history_batches
from jaxrec.data.windows import bucket_lengths
from jaxrec.devices.sharding import WHOLE, constrain, place, place_params, several_devices, users_at_once
from jaxrec.lists.recommending import sample_queries
from jaxrec.recommender import Recommender
from jaxrec.typing import Array, Params, PRNGKey

PAIRS_AT_ONCE = 4096


def score_pairs(
    recommender: Recommender,
    params: Params,
    items: np.ndarray,
    offsets: np.ndarray,
    wanted: np.ndarray,
    wanted_offsets: np.ndarray,
    *,
    item_counts: np.ndarray,
    key: PRNGKey,
    num_samples: int = 1,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """``[P]`` float32 scores of the items that each of n histories is asked about.

    An empty history scores an item by its share of the training interactions, as in ``recommend_histories``.

    Args:
      recommender: the model.
      params: its parameters.
      items: int32, all histories one after the other, oldest first.
      offsets: int64 ``[n + 1]``.
      wanted: int32 ``[P]``, the items of all pairs, one history after the other.
      wanted_offsets: int64 ``[n + 1]``.
      item_counts: ``[num_items + 1]`` interactions of each item in the training part.
      key: of a stochastic model.
      num_samples: draws averaged for a stochastic model.
      batch_size: histories of one dispatch; ``None`` chooses by the kind of device.
      mesh: devices on which ``params`` lie; each of them does the whole work.
    """
    mesh = several_devices(mesh)
    if mesh is not None:
        params, key = place_params(params, mesh), place(key, mesh, WHOLE)
    table = _table(recommender, params, mesh)
    scores = np.zeros(len(wanted), np.float32)
    at_once = users_at_once(batch_size, None, recommender.target_positions)
    for batch in history_batches(
        items,
        offsets[:-1],
        offsets[1:],
        lengths=bucket_lengths(recommender.max_length, recommender.target_positions),
        batch_size=at_once.batch_size,
        pairs=at_once.pairs,
        with_seen=False,
    ):
        histories = batch.items if mesh is None else place(batch.items, mesh, WHOLE)
        query = _queries(recommender, num_samples, mesh, params, histories, key)
        rows, places = _pairs_of(batch.rows, wanted_offsets)
        for start in range(0, len(rows), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            scores[places[part]] = _scores(mesh, query, table, rows[part], wanted[places[part]])
    empty = np.repeat(np.diff(offsets) == 0, np.diff(wanted_offsets))
    scores[empty] = item_counts[wanted[empty]] / max(item_counts[1:].sum(), 1)
    return scores


def _pairs_of(histories: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a batch of histories ``[B]`` (-1 fills up): of each pair its row in the batch and its place among all."""
    counts = np.where(histories >= 0, np.diff(offsets)[histories], 0)
    rows = np.repeat(np.arange(len(histories)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, offsets[histories[rows]] + within


@functools.partial(jax.jit, static_argnums=(0, 2))
def _table(recommender: Recommender, params: Params, mesh: Mesh | None) -> Array:
    return constrain(recommender.items(params), mesh, WHOLE)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _queries(
    recommender: Recommender, num_samples: int, mesh: Mesh | None, params: Params, items: Array, key: PRNGKey
) -> Array:
    """``[B, Q]`` float32, the mean over the samples."""
    samples = sample_queries(recommender, params, items, key, num_samples)
    return constrain(jnp.mean(samples, axis=0), mesh, WHOLE)


def _scores(mesh: Mesh | None, query: Array, table: Array, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Scores ``[P]`` of pairs, filled up so that all calls share a program."""
    filling = (0, PAIRS_AT_ONCE - len(rows))
    pairs = np.stack([np.pad(rows, filling), np.pad(items, filling)]).astype(np.int32)
    pairs = pairs if mesh is None else place(pairs, mesh, WHOLE)
    return np.asarray(_inner_products(query, table, pairs))[: len(rows)]


@jax.jit
def _inner_products(query: Array, table: Array, pairs: Array) -> Array:
    found = jnp.einsum("pq,pq->p", query[pairs[0]], table[pairs[1]].astype(jnp.float32), precision="highest")
    return found.astype(jnp.float32)


__all__ = ["score_pairs"]
