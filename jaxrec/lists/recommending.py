"""``recommend``: from histories to lists of items; pure, jitted, the same scorer as evaluation.

On a mesh, each device computes the queries of its users; then each scores the users of its ``data`` row against
its part of the item table, and the lists of the parts are merged. The table is never gathered.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxrec.devices.mesh import DATA_AXIS
from jaxrec.devices.sharding import (
    DATA_ROWS,
    ITEM_ROWS,
    USERS,
    WHOLE,
    constrain,
    fill_rows,
    place,
    place_items,
    place_params,
    place_rows,
    several_devices,
    split_axis,
    split_items,
)
from jaxrec.lists.arguments import as_ids, as_mask, check_ids
from jaxrec.lists.scoring import Catalogue, ChunkedScores, exclude_places, map_rows, query_scores
from jaxrec.lists.topk import merge_parts, merge_top_k, top_k
from jaxrec.recommender import Recommender, drawing
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
    """``[num_samples, B, Q]`` draws of the query; a recommender that has nothing to draw is asked once.

    One sample takes ``key`` as it is, so that it is the query of ``recommender.query(params, items, key)``: a mean, for
    a recommender that draws on request only. Several are draws (``jaxrec.recommender.drawing``). Products of
    float32 matrices are full ones also where a device would rather round their operands (TPUs to bfloat16, GPUs to
    TF32), so that ranks and lists are those of a CPU.
    """
    with jax.default_matmul_precision("float32"):
        sampled = recommender if num_samples == 1 else drawing(recommender)
        if num_samples == 1 or not sampled.stochastic:
            return sampled.query(params, items, key)[None]
        keys = jax.random.split(key, num_samples)
        return jax.lax.map(lambda sample_key: sampled.query(params, items, sample_key), keys)


def best_items(scores: ChunkedScores, k: int) -> TopK:
    """The k items with the highest scores, of the whole catalogue also where its rows are split."""
    axis = scores.catalogue.axis
    length = k if axis is None else min(k, scores.catalogue.table.shape[0])

    def best_of(part, start):
        values, places = top_k(part, length)
        return values, start + places

    def step(best, part, start):
        return merge_top_k(best, best_of(part, start), length)

    if scores.num_chunks == 1:
        best = scores.fold(lambda _, whole, start: best_of(whole, start), None)
    else:
        shape = (scores.query.shape[0], length)
        best = scores.fold(step, (jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)))
    return _lists(*merge_parts(best, k, axis))


def best_candidates(
    query: Array, catalogue: Catalogue, candidates: Array, *, k: int, exclude: Array | None = None
) -> TopK:
    """The k best of a list of candidates, shared ``[C]`` or one a row ``[B, C]`` (int32).

    Repeated candidates count once; ids that are no item (0 fills up short lists) are ignored. Where the
    catalogue's rows are split, each device ranks those candidates that stand in its part.
    """
    table, num_items, allowed = catalogue[:3]
    candidates = jnp.sort(candidates, axis=-1)
    new = jnp.diff(candidates, axis=-1, prepend=-1) != 0
    usable = new & (candidates >= 1) & (candidates <= num_items)
    rows, here = catalogue.find(jnp.where(usable, candidates, 0))
    usable &= here
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
    values, places = top_k(scores, k if catalogue.axis is None else min(k, scores.shape[1]))
    ids = jnp.take_along_axis(jnp.broadcast_to(candidates, scores.shape), places, axis=1)
    return _lists(*merge_parts((values, ids), k, catalogue.axis))


def _lists(scores: Array, items: Array) -> TopK:
    valid = scores > -jnp.inf
    return TopK(jnp.where(valid, items, 0).astype(jnp.int32), scores, valid)


class _Settings(NamedTuple):
    """What is static in ``_recommend``; the arguments of ``recommend``."""

    k: int
    num_samples: int
    with_spread: bool
    chunk: int | None
    mesh: Mesh | None


@functools.partial(jax.jit, static_argnums=(0, 1))
def _recommend(recommender, settings, params, items, key, exclude, candidates, allowed):
    """``recommend``, compiled: ``TopK`` of ``[B, k]`` arrays from histories ``items`` ``[B, L]``.

    Args:
      recommender: the model.
      settings: what else is static.
      params: its parameters.
      items: ``[B, L]`` int32 histories; ids that are no item are padding.
      key: random key of the draws; ``None`` for models that draw nothing.
      exclude: ``[B, S]`` int32 items to leave out, or ``None``.
      candidates: ``[C]`` or, each row's own, ``[B, C]`` int32, or ``None`` for all items.
      allowed: ``[V]`` bool rows of the catalogue that may be recommended, or ``None``.
    """
    key = jax.random.key(0) if key is None else key
    items = jnp.where((items > 0) & (items <= recommender.num_items), items, 0)
    mesh, rows = settings.mesh, items.shape[0]
    if mesh is None:
        samples = sample_queries(recommender, params, items, key, settings.num_samples)
        catalogue = Catalogue(recommender.items(params), recommender.num_items, allowed)
        return _best(settings, samples, catalogue, exclude, candidates)
    own_candidates = candidates is not None and candidates.ndim == 2
    by_row = (items, exclude, candidates if own_candidates else None)
    by_row = jax.tree.map(lambda array: fill_rows(array, mesh.size), by_row)
    items, exclude, own = constrain(by_row, mesh, USERS)
    samples = sample_queries(recommender, params, items, key, settings.num_samples)
    table, allowed = split_items((recommender.items(params), allowed), mesh)

    def best_of_part(samples, table, allowed, exclude, candidates):
        catalogue = Catalogue.part(table, recommender.num_items, allowed, axis=split_axis(mesh))
        return _best(settings, samples, catalogue, exclude, candidates)

    lists = jax.shard_map(
        best_of_part,
        mesh=mesh,
        in_specs=(
            PartitionSpec(None, DATA_AXIS),
            *(ITEM_ROWS, ITEM_ROWS, DATA_ROWS),
            DATA_ROWS if own_candidates else WHOLE,
        ),
        out_specs=DATA_ROWS,
        check_vma=False,  # what merges the parts is not known to give the same on each device
    )(samples, table, allowed, exclude, own if own_candidates else candidates)
    return jax.tree.map(lambda array: array[:rows], constrain(lists, mesh, WHOLE))


def _best(
    settings: _Settings,
    samples: Array,
    catalogue: Catalogue,
    exclude: Array | None,
    candidates: Array | None,
) -> TopK:
    """Lists for draws of the query ``[num_samples, B, Q]``."""
    query, k = jnp.mean(samples, axis=0), settings.k
    if candidates is None:
        lists = map_rows(
            lambda query, exclude: best_items(ChunkedScores(query, catalogue, exclude, settings.chunk), k),
            (query, exclude),
            catalogue.table.shape[0],
            settings.chunk,
        )
    else:
        lists = best_candidates(query, catalogue, candidates, k=k, exclude=exclude)
    if settings.with_spread:
        rows, here = catalogue.find(lists.items)
        scores = jnp.einsum("sbq,bkq->sbk", samples, catalogue.table[rows], precision="highest")
        spread = jnp.where(lists.valid & here, jnp.std(scores, axis=0), 0.0)
        if catalogue.axis is not None:
            spread = jax.lax.psum(spread, catalogue.axis)
        lists = lists._replace(spread=spread)
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
    mesh: Mesh | None = None,
) -> TopK:
    """The k best items for each history: score, exclude, restrict, top-k, in one compiled program.

    Compiled once for every combination of shapes, ``k`` and the other static arguments; to serve many
    users without retracing, keep to few shapes (pad the batch, and the history on its left).

    Args:
      recommender: the model.
      params: its parameters.
      items: ``[B, L]`` int32 histories, right-aligned, 0 is padding, L at most ``recommender.max_length``. An id that
        is no item is an error in a numpy array; in one that lies on a device it cannot be looked at without waiting
        for it, and is padding.
      k: length of the lists.
      key: random key, for a stochastic recommender; ``None`` is ``jax.random.key(0)``. The same key gives a history the
        same list in any batch.
      exclude: ``[B, S]`` int32 items to leave out of each row's list, 0 is nothing: the whole history,
        also where it is longer than L.
      candidates: int32, the only items to choose from: ``[C]`` for all rows, or ``[B, C]``.
      allowed: bool, items that may be recommended at all (those that were trained, say), by id: ``[num_items + 1]``
        or as long as the item table.
      num_samples: draws of the query that are averaged, of a recommender that can draw; 1 asks one that draws on
        request only (``VaeAttention``) for its mean.
      with_spread: whether to return the standard deviation of the scores over the samples.
      chunk: rows of the item table scored at once; ``None`` chooses by memory.
      mesh: devices that share the work, as ``jaxrec.devices.make_mesh`` makes it; ``None`` is where ``params`` lie.
        Arguments are copied there if they lie elsewhere (``jaxrec.devices.place_params`` does it once for many
        calls); lists come back whole on every device.

    Raises:
      ValueError: if ``k``, ``num_samples``, an id of ``items``, a shape or the mesh is out of range.
    """
    items = as_ids("items", items, (2,))
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least 1 item")
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; it must be at least 1")
    if items.shape[1] > recommender.max_length:
        raise ValueError(
            f"items has histories of {items.shape[1]} items and the model reads {recommender.max_length}:"
            f" give the last {recommender.max_length}, and the whole history as exclude"
        )
    exclude = None if exclude is None else as_ids("exclude", exclude, (2,))
    candidates = None if candidates is None else as_ids("candidates", candidates, (1, 2))
    for name, array in (("exclude", exclude), ("candidates", candidates)):
        if array is not None and array.ndim == 2 and array.shape[0] != items.shape[0]:
            raise ValueError(f"{name} has {array.shape[0]} rows for {items.shape[0]} histories")
    if isinstance(items, np.ndarray):
        check_ids(items, recommender.num_items)
    allowed = None if allowed is None else as_mask(allowed, recommender.num_items)
    mesh = several_devices(mesh)
    if mesh is not None:
        params = place_params(params, mesh)
        items, exclude = place_rows((items, exclude), mesh)
        if candidates is not None:
            candidates = (
                place_rows(candidates, mesh) if candidates.ndim == 2 else place(candidates, mesh, WHOLE)
            )
        allowed, key = place_items(allowed, mesh), place(key, mesh, WHOLE)
    settings = _Settings(k, num_samples, with_spread, chunk, mesh)
    return _recommend(recommender, settings, params, items, key, exclude, candidates, allowed)


__all__ = ["TopK", "best_candidates", "best_items", "recommend", "sample_queries"]
