"""Evaluation of a recommender over the full catalogue: ranks, lists, and every metric of the protocol.

Three compiled programs: the item table (once), the queries (one a history length), scores and ranks (one
a width of the history). The catalogue is scored in chunks, so memory stays bounded at any number of
items. Each user's values come back one batch late, while the next batch is computed, and are averaged
once, at the end, in float64: the numbers do not depend on the batching.

On a mesh the users of a batch are spread over all devices, and the item table's rows over ``model``: each
device scores the users of its ``data`` row against its part of the table, counts of competitors are added
and lists merged over ``model``. The table is never gathered.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrec.data.evaluation_batches import EvaluationBatch, evaluation_batches
from jaxrec.diversity import CategoryTable, self_information, vector_metrics
from jaxrec.mesh import DATA_AXIS, MODEL_AXIS
from jaxrec.metrics import CUTOFFS
from jaxrec.recommend import best_items, sample_queries
from jaxrec.recommender import Recommender
from jaxrec.scoring import Catalogue, ChunkedScores, map_rows
from jaxrec.sharding import (
    DATA_ROWS,
    ITEM_ROWS,
    USERS,
    WHOLE,
    constrain,
    place,
    place_params,
    place_rows,
    several_devices,
    split_axis,
    split_items,
)
from jaxrec.train.evaluation_result import Evaluation, Group, summarise
from jaxrec.typing import Array, Params, PRNGKey


def evaluate(
    recommender: Recommender,
    params: Params,
    log_items: np.ndarray,
    targets: Any,
    *,
    exclude_seen: bool = True,
    key: PRNGKey | None = None,
    num_samples: int = 1,
    batch_size: int = 256,
    cutoffs: Sequence[int] = CUTOFFS,
    with_lists: bool = True,
    item_counts: np.ndarray | None = None,
    categories: CategoryTable | None = None,
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Evaluation:
    """Ranks each target among all items, and judges the lists.

    A target that the user has seen already cannot be recommended when seen items are excluded: it then
    ranks after all that can.

    Args:
      recommender: the model.
      params: its parameters.
      log_items: ``[N]`` int32, the flat log (may be memory-mapped).
      targets: ``Targets`` of a split: ``starts`` and ``positions`` ``[n]``; row r's history is
        ``log_items[starts[r]:positions[r]]``, its target ``log_items[positions[r]]``.
      exclude_seen: whether items of the whole history are left out of the ranking.
      key: of a stochastic recommender; ``None`` is ``jax.random.key(0)``.
      num_samples: draws of a stochastic recommender's query that are averaged.
      batch_size: users of one batch, of all devices together; rounded up to a multiple of them.
      cutoffs: the K of the metrics.
      with_lists: whether to make lists and judge them; without, only ranks and accuracy (faster).
      item_counts: ``[num_items + 1]`` occurrences in training, for novelty and popularity groups.
      categories: of the items, for ``cc@K``, ``f@K`` and ``category_ild@K``.
      chunk: rows of the item table scored at once; ``None`` chooses by memory.
      mesh: devices that share the work, as ``jaxrec.mesh.make_mesh`` makes it; ``None`` is where ``params`` lie.
        The figures are those of one device. With several processes, each gives the same arguments and gets
        the same result.

    Raises:
      ValueError: if there is no target, or an argument does not fit the recommender or the mesh.
    """
    starts, positions = np.asarray(targets.starts), np.asarray(targets.positions)
    cutoffs = tuple(sorted(cutoffs))
    _check(recommender, len(positions), cutoffs, item_counts, categories)
    key = jax.random.key(0) if key is None else key
    mesh = several_devices(mesh)
    if mesh is not None:
        params, key = place_params(params, mesh), place(key, mesh, WHOLE)
    table = _table(recommender, params, mesh)
    facts = _ListFacts(
        None if item_counts is None else jnp.asarray(self_information(item_counts)),
        None if categories is None else jnp.asarray(categories.rows),
    )
    settings = _Settings(
        recommender.num_items,
        cutoffs if with_lists else (),
        0 if categories is None else categories.count,
        chunk,
        mesh,
    )
    if mesh is not None:
        facts = place(facts, mesh, WHOLE)
    counts = _zero_counts(settings, table.shape[0])
    results = _Results(len(positions))
    for batch in evaluation_batches(
        log_items,
        starts,
        positions,
        max_length=recommender.max_length,
        batch_size=batch_size,
        with_seen=exclude_seen,
        devices=1 if mesh is None else mesh.size,
    ):
        items, users = batch.items, (batch.targets, batch.seen, batch.weights)
        if mesh is not None:
            items, users = place_rows((items, users), mesh)
        query = _query(recommender, params, items, key, num_samples, mesh)
        values, counts = _rank(settings, query, table, facts, *users, counts)
        results.add(batch, values)
    lengths, target_items = positions - starts, np.asarray(log_items[positions])
    counts = np.asarray(_sum_counts(settings, counts))
    return summarise(results.fetch(), counts, cutoffs, lengths, target_items, item_counts)


def _check(
    recommender: Recommender,
    rows: int,
    cutoffs: tuple[int, ...],
    item_counts: np.ndarray | None,
    categories: CategoryTable | None,
) -> None:
    if rows == 0:
        raise ValueError("there is no target to evaluate on: this part of the split is empty")
    if not cutoffs or cutoffs[0] < 1:
        raise ValueError(f"cutoffs are {cutoffs}; give at least one, each at least 1")
    described = {"item_counts": item_counts, "categories": None if categories is None else categories.rows}
    for name, array in described.items():
        if array is not None and len(array) != recommender.num_items + 1:
            raise ValueError(
                f"{name} describes {len(array) - 1} items and the recommender ranks {recommender.num_items}"
            )


class _Settings(NamedTuple):
    """What is static in ``_rank``; without ``list_cutoffs`` no lists are made."""

    num_items: int
    list_cutoffs: tuple[int, ...]
    num_categories: int
    chunk: int | None
    mesh: Mesh | None = None

    @property
    def axis(self) -> str | None:
        """The mesh axis over which the table is split, if it is."""
        return split_axis(self.mesh)

    @property
    def counts_spec(self) -> PartitionSpec:
        """Of the counts ``[data, cutoffs, V]``: for each ``data`` row of devices, its part of the items."""
        return PartitionSpec(DATA_AXIS, None, MODEL_AXIS)


class _ListFacts(NamedTuple):
    """What is known of the items: information ``[num_items + 1]``, categories ``[num_items + 1, A]``."""

    information: Array | None
    categories: Array | None


def _zero_counts(settings: _Settings, rows: int) -> Array:
    """How often each item was recommended: ``[data, cutoffs, V]`` int32, for the ``data`` rows of the mesh."""
    mesh, cutoffs = settings.mesh, len(settings.list_cutoffs)
    if mesh is None:
        return jnp.zeros((1, cutoffs, rows), jnp.int32)
    sharding = NamedSharding(mesh, settings.counts_spec)
    return jnp.zeros((mesh.shape[DATA_AXIS], cutoffs, rows), jnp.int32, device=sharding)


@functools.partial(jax.jit, static_argnums=0)
def _sum_counts(settings: _Settings, counts: Array) -> Array:
    """``[cutoffs, num_items + 1]``, whole on every device."""
    return constrain(jnp.sum(counts, axis=0)[:, : settings.num_items + 1], settings.mesh, WHOLE)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _table(recommender: Recommender, params: Params, mesh: Mesh | None) -> Array:
    return split_items(recommender.items(params), mesh)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _query(
    recommender: Recommender,
    params: Params,
    items: Array,
    key: PRNGKey,
    num_samples: int,
    mesh: Mesh | None,
) -> Array:
    query = jnp.mean(sample_queries(recommender, params, items, key, num_samples), axis=0)
    return constrain(query, mesh, USERS)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=7)
def _rank(
    settings: _Settings,
    query: Array,
    table: Array,
    facts: _ListFacts,
    targets: Array,
    seen: Array,
    weights: Array,
    counts: Array,
) -> tuple[dict[str, Array], Array]:
    """Ranks and lists of a batch, and the counts of ``_zero_counts`` grown by its lists."""
    arguments = query, table, facts, targets, seen, weights, counts
    if settings.mesh is None:
        return _rank_part(settings, *arguments)
    values, counts = jax.shard_map(
        functools.partial(_rank_part, settings),
        mesh=settings.mesh,
        in_specs=(DATA_ROWS, ITEM_ROWS, WHOLE, *3 * [DATA_ROWS], settings.counts_spec),
        out_specs=(USERS, settings.counts_spec),
        check_vma=False,  # what merges the parts is not known to give the same on each device
    )(*arguments)
    return constrain(values, settings.mesh, WHOLE), counts


def _rank_part(
    settings: _Settings,
    query: Array,
    table: Array,
    facts: _ListFacts,
    targets: Array,
    seen: Array,
    weights: Array,
    counts: Array,
) -> tuple[dict[str, Array], Array]:
    """``_rank`` of one device: all its users against its part of the table, and values of its own users.

    Its own are a part of the users that the devices with the other parts of the table hold as well; of all of
    them if the table is whole.
    """
    catalogue = Catalogue.part(table, settings.num_items, axis=settings.axis)

    def rank_block(query: Array, targets: Array, exclude: Array | None) -> dict[str, Array]:
        scores = ChunkedScores(query, catalogue, exclude, settings.chunk)
        values = count_competitors(scores, targets)
        if settings.list_cutoffs:
            values["items"] = best_items(scores, settings.list_cutoffs[-1]).items
        return values

    rows = query, targets, seen if seen.shape[1] else None
    values = map_rows(rank_block, rows, table.shape[0], settings.chunk)
    if settings.list_cutoffs:
        counts = _count_lists(settings, catalogue, values["items"], weights, counts)
        vectors = _own_vectors(catalogue, values["items"])
    values = _own_rows(values, settings.axis)
    if settings.list_cutoffs:
        categories = None
        if facts.categories is not None:
            categories = CategoryTable(facts.categories, settings.num_categories)
        values |= vector_metrics(
            values["items"], vectors, settings.list_cutoffs, facts.information, categories
        )
    return values, counts


def _count_lists(
    settings: _Settings, catalogue: Catalogue, items: Array, weights: Array, counts: Array
) -> Array:
    """Adds the lists' items that stand in this part of the table to its counts ``[1, cutoffs, V]``."""
    places, here = catalogue.find(items)
    ones = jnp.broadcast_to((weights > 0)[:, None] & here, items.shape).astype(jnp.int32)
    for row, cutoff in enumerate(settings.list_cutoffs):
        counts = counts.at[0, row, places[:, :cutoff]].add(ones[:, :cutoff])
    return counts


def _own_rows(values: dict[str, Array], axis: str | None) -> dict[str, Array]:
    """This device's share of rows ``[B, ...]`` that all devices of the axis hold."""
    if axis is None:
        return values

    def cut(value: Array) -> Array:
        size = value.shape[0] // jax.lax.axis_size(axis)
        return jax.lax.dynamic_slice_in_dim(value, jax.lax.axis_index(axis) * size, size)

    return jax.tree.map(cut, values)


def _own_vectors(catalogue: Catalogue, items: Array) -> Array:
    """Vectors ``[B, K, Q]`` of the items of lists ``[B, K]``, of this device's share of the rows."""
    places, here = catalogue.find(items)
    vectors = catalogue.table[places]
    if catalogue.axis is None:
        return vectors
    # All but one of the devices add zeros, so the sum is exact.
    vectors = jnp.where(here[..., None], vectors, 0.0)
    return jax.lax.psum_scatter(vectors, catalogue.axis, scatter_dimension=0, tiled=True)


def count_competitors(scores: ChunkedScores, targets: Array) -> dict[str, Array]:
    """``higher`` and ``equal`` ``[B]`` int32: other items scored above, and equal to, each target.

    A target that may not be ranked has all that may above it. Where the catalogue's rows are split, all parts
    are counted.
    """
    axis = scores.catalogue.axis

    def pick(found: Array, part: Array, start: Array | int) -> Array:
        places = targets - start
        here = (places >= 0) & (places < part.shape[1])
        own = jnp.take_along_axis(part, jnp.where(here, places, 0)[:, None], axis=1)[:, 0]
        return jnp.maximum(found, jnp.where(here, own, -jnp.inf))

    own = scores.fold(pick, jnp.full(targets.shape, -jnp.inf, jnp.float32))[:, None]
    if axis is not None:
        own = jax.lax.pmax(own, axis)

    def count(sums: tuple[Array, Array], part: Array, start: Array | int) -> tuple[Array, Array]:
        del start
        # Float sums are exact up to 2**24 columns, and several times faster than integer ones on CPUs.
        higher = jnp.sum(jnp.where(part > own, 1.0, 0.0), axis=1)
        equal = jnp.sum(jnp.where(part == own, 1.0, 0.0), axis=1)
        return sums[0] + higher.astype(jnp.int32), sums[1] + equal.astype(jnp.int32)

    zeros = jnp.zeros(targets.shape, jnp.int32)
    higher, equal = scores.fold(count, (zeros, zeros))
    if axis is not None:
        higher, equal = jax.lax.psum((higher, equal), axis)
    return {"higher": higher, "equal": jnp.where(jnp.isneginf(own[:, 0]), 0, equal - 1)}


class _Results:
    """Collects what the batches give into one array a name, one batch behind the device."""

    def __init__(self, rows: int):
        self.rows = rows
        self.arrays: dict[str, np.ndarray] = {}
        self.waiting: tuple[EvaluationBatch, dict[str, Array]] | None = None

    def add(self, batch: EvaluationBatch, values: dict[str, Array]) -> None:
        """Takes a batch that was just dispatched, and fetches the one before it."""
        self._fetch_waiting()
        self.waiting = (batch, values)

    def _fetch_waiting(self) -> None:
        if self.waiting is None:
            return
        batch, values = self.waiting
        real = batch.rows >= 0
        for name, value in jax.device_get(values).items():
            if name not in self.arrays:
                self.arrays[name] = np.zeros((self.rows, *value.shape[1:]), value.dtype)
            self.arrays[name][batch.rows[real]] = value[real]

    def fetch(self) -> dict[str, np.ndarray]:
        """All values, in the caller's order of rows."""
        self._fetch_waiting()
        self.waiting = None
        return self.arrays


__all__ = ["Evaluation", "Group", "count_competitors", "evaluate"]
