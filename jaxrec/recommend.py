"""``recommend``: from histories to lists of items; pure, jitted, the same scorer as evaluation."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrec.recommender import Recommender
from jaxrec.scoring import Catalogue, ChunkedScores, exclude_places, map_rows, query_scores
from jaxrec.topk import merge_top_k, top_k
from jaxrec.typing import Array, Params, PRNGKey

CANDIDATE_BYTES = 2**26


class TopK(NamedTuple):
    """Lists of recommended items, best first; equal scores in ascending id.

    Attributes:
      items: ``[B, K]`` int32, 0 where nothing was left to recommend.
      scores: ``[B, K]`` float32, -inf there.
      valid: ``[B, K]`` bool, False there.
      spread: ``[B, K]`` float32 standard deviation of the score over samples, if asked for.
    """

    items: Array
    scores: Array
    valid: Array
    spread: Array | None = None


def sample_queries(
    recommender: Recommender, params: Params, items: Array, key: PRNGKey, num_samples: int
) -> Array:
    """``[num_samples, B, Q]`` draws of the query; a recommender without randomness is asked once.

    One sample takes ``key`` as it is, so that it is the query of ``recommender.query(params, items, key)``.
    """
    if num_samples == 1 or not recommender.stochastic:
        return recommender.query(params, items, key)[None]
    keys = jax.random.split(key, num_samples)
    return jax.lax.map(lambda sample_key: recommender.query(params, items, sample_key), keys)


def best_items(scores: ChunkedScores, k: int) -> TopK:
    """The k items with the highest scores."""

    def step(best, part, start):
        values, places = top_k(part, k)
        return merge_top_k(best, (values, start + places), k)

    if scores.num_chunks == 1:
        return _lists(*scores.fold(lambda _, whole, start: top_k(whole, k), None))
    shape = (scores.query.shape[0], k)
    return _lists(*scores.fold(step, (jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32))))


def best_candidates(
    query: Array, catalogue: Catalogue, candidates: Array, *, k: int, exclude: Array | None = None
) -> TopK:
    """The k best of a list of candidates, shared ``[C]`` or one a row ``[B, C]`` (int32).

    Repeated candidates count once; ids that are no item (0 fills up short lists) are ignored.
    """
    table, num_items, allowed = catalogue
    candidates = jnp.sort(candidates, axis=-1)
    new = jnp.diff(candidates, axis=-1, prepend=-1) != 0
    usable = new & (candidates >= 1) & (candidates <= num_items)
    rows = jnp.where(usable, candidates, 0)
    if allowed is not None:
        usable &= allowed[rows]
    if candidates.ndim == 1:
        scores = query_scores(query, table[rows])
    else:
        batch = max(1, CANDIDATE_BYTES // (4 * candidates.shape[1] * query.shape[1]))
        scores = jax.lax.map(
            lambda pair: query_scores(pair[0][None], table[pair[1]])[0], (query, rows), batch_size=batch
        )
    scores = jnp.where(usable, scores, -jnp.inf)
    if exclude is not None:
        ids = jnp.broadcast_to(candidates, scores.shape)
        find = jax.vmap(lambda ids, wanted: jnp.searchsorted(ids, wanted))
        places = find(ids, exclude)
        found = jnp.take_along_axis(ids, jnp.minimum(places, ids.shape[1] - 1), axis=1) == exclude
        scores = exclude_places(scores, jnp.where(found, places, -1))
    values, places = top_k(scores, k)
    return _lists(values, jnp.take_along_axis(jnp.broadcast_to(candidates, scores.shape), places, axis=1))


def _lists(scores: Array, items: Array) -> TopK:
    valid = scores > -jnp.inf
    return TopK(jnp.where(valid, items, 0).astype(jnp.int32), scores, valid)


@functools.partial(jax.jit, static_argnames=("recommender", "k", "num_samples", "with_spread", "chunk"))
def _recommend(
    recommender, params, items, key, exclude, candidates, allowed, *, k, num_samples, with_spread, chunk
):
    key = jax.random.key(0) if key is None else key
    samples = sample_queries(recommender, params, items, key, num_samples)
    query = jnp.mean(samples, axis=0)
    catalogue = Catalogue(recommender.items(params), recommender.num_items, allowed)
    if candidates is None:
        lists = map_rows(
            lambda query, exclude: best_items(ChunkedScores(query, catalogue, exclude, chunk), k),
            (query, exclude),
            catalogue.table.shape[0],
            chunk,
        )
    else:
        lists = best_candidates(query, catalogue, candidates, k=k, exclude=exclude)
    if with_spread:
        rows = catalogue.table[lists.items]
        scores = jnp.einsum("sbq,bkq->sbk", samples, rows, precision="highest")
        lists = lists._replace(spread=jnp.where(lists.valid, jnp.std(scores, axis=0), 0.0))
    return lists


def recommend(
    recommender: Recommender,
    params: Params,
    items: Array,
    *,
    k: int,
    key: PRNGKey | None = None,
    exclude: Array | None = None,
    candidates: Array | None = None,
    allowed: Array | None = None,
    num_samples: int = 1,
    with_spread: bool = False,
    chunk: int | None = None,
) -> TopK:
    """The k best items for each history: score, exclude, restrict, top-k, in one compiled program.

    Compiled once for every combination of shapes, ``k`` and the other static arguments; to serve many
    users without retracing, keep to few shapes (pad the batch, and the history on its left).

    Args:
      recommender: the model.
      params: its parameters.
      items: ``[B, L]`` int32 histories, right-aligned, 0 is padding, L at most ``recommender.max_length``.
      k: length of the lists.
      key: of a stochastic recommender; ``None`` is ``jax.random.key(0)``. The same key gives a history the
        same list in any batch.
      exclude: ``[B, S]`` int32 items to leave out of each row's list, 0 is nothing: the whole history,
        also where it is longer than L.
      candidates: int32, the only items to choose from: ``[C]`` for all rows, or ``[B, C]``.
      allowed: ``[V]`` bool, items that may be recommended at all (those that were trained, say).
      num_samples: draws of a stochastic recommender's query that are averaged.
      with_spread: whether to return the standard deviation of the scores over the samples.
      chunk: rows of the item table scored at once; ``None`` chooses by memory.

    Raises:
      ValueError: if ``k``, ``num_samples`` or a shape is out of range.
    """
    items = _as_ids("items", items, (2,))
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least 1 item")
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; it must be at least 1")
    if items.shape[1] > recommender.max_length:
        raise ValueError(
            f"items has histories of {items.shape[1]} items and the model reads {recommender.max_length}:"
            f" give the last {recommender.max_length}, and the whole history as exclude"
        )
    exclude = None if exclude is None else _as_ids("exclude", exclude, (2,))
    candidates = None if candidates is None else _as_ids("candidates", candidates, (1, 2))
    for name, array in (("exclude", exclude), ("candidates", candidates)):
        if array is not None and array.ndim == 2 and array.shape[0] != items.shape[0]:
            raise ValueError(f"{name} has {array.shape[0]} rows for {items.shape[0]} histories")
    return _recommend(
        recommender,
        params,
        items,
        key,
        exclude,
        candidates,
        allowed,
        k=k,
        num_samples=num_samples,
        with_spread=with_spread,
        chunk=chunk,
    )


def _as_ids(name: str, array: Array, dimensions: tuple[int, ...]) -> Array:
    if jnp.ndim(array) not in dimensions or not jnp.issubdtype(array.dtype, jnp.integer):
        shapes = " or ".join(f"{number}-dimensional" for number in dimensions)
        raise ValueError(
            f"{name} must be a {shapes} array of integers, it has shape {jnp.shape(array)}"
            f" and type {array.dtype}"
        )
    return array


__all__ = ["TopK", "best_candidates", "best_items", "recommend", "sample_queries"]
