"""Ranks and lists of a batch of users against the whole item table, in one compiled program.

The table is scored in chunks, so memory stays bounded at any number of items. On a mesh each device scores the
users of its ``data`` row against its part of the table; counts of competitors are added, and lists merged, over
``model``.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrec.devices.mesh import DATA_AXIS, MODEL_AXIS
from jaxrec.devices.sharding import DATA_ROWS, ITEM_ROWS, USERS, WHOLE, constrain, split_axis
from jaxrec.lists import best_items
from jaxrec.lists.scoring import Catalogue, ChunkedScores, map_rows
from jaxrec.metrics.diversity import CategoryTable, vector_metrics
from jaxrec.typing import Array


class RankSettings(NamedTuple):
    """What is static in ``rank_users``; without ``list_cutoffs`` no lists are made."""

    num_items: int
    list_cutoffs: tuple[int, ...]
    num_categories: int
    chunk: int | None
    mesh: Mesh | None = None
    constant_columns: int = 0

    @property
    def axis(self) -> str | None:
        """The mesh axis over which the table is split, if it is."""
        return split_axis(self.mesh)

    @property
    def counts_spec(self) -> PartitionSpec:
        """Of the counts ``[data, cutoffs, V]``: for each ``data`` row of devices, its part of the items."""
        return PartitionSpec(DATA_AXIS, None, MODEL_AXIS)


class ListFacts(NamedTuple):
    """What is known of the items: information ``[num_items + 1]``, categories ``[num_items + 1, A]``."""

    information: Array | None
    categories: Array | None


def zero_counts(settings: RankSettings, rows: int) -> Array:
    """How often each item was recommended: ``[data, cutoffs, V]`` int32, for the ``data`` rows of the mesh."""
    mesh, cutoffs = settings.mesh, len(settings.list_cutoffs)
    if mesh is None:
        return jnp.zeros((1, cutoffs, rows), jnp.int32)
    sharding = NamedSharding(mesh, settings.counts_spec)
    return jnp.zeros((mesh.shape[DATA_AXIS], cutoffs, rows), jnp.int32, device=sharding)


@functools.partial(jax.jit, static_argnums=0)
def sum_counts(settings: RankSettings, counts: Array) -> Array:
    """``[cutoffs, num_items + 1]``, whole on every device."""
    return constrain(jnp.sum(counts, axis=0)[:, : settings.num_items + 1], settings.mesh, WHOLE)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=7)
def rank_users(
    settings: RankSettings,
    query: Array,
    table: Array,
    facts: ListFacts,
    targets: Array,
    seen: Array,
    weights: Array,
    counts: Array,
) -> tuple[dict[str, Array], Array]:
    """Ranks and lists of a batch, and the counts of ``zero_counts`` grown by its lists."""
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
    settings: RankSettings,
    query: Array,
    table: Array,
    facts: ListFacts,
    targets: Array,
    seen: Array,
    weights: Array,
    counts: Array,
) -> tuple[dict[str, Array], Array]:
    """``rank_users`` of one device: all its users against its part of the table, and values of its own users.

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
        vectors = _own_vectors(catalogue, values["items"])[..., settings.constant_columns :]
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
    settings: RankSettings, catalogue: Catalogue, items: Array, weights: Array, counts: Array
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

    A target that may not be ranked has all that may above it, and -1 equal to it (``metrics.Ranks``). Where the
    catalogue's rows are split, all parts are counted.
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
    return {"higher": higher, "equal": jnp.where(jnp.isneginf(own[:, 0]), -1, equal - 1)}


__all__ = ["ListFacts", "RankSettings", "count_competitors", "rank_users", "sum_counts", "zero_counts"]
