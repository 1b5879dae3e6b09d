"""Evaluation of a recommender over the full catalogue: ranks, lists, and every metric of the protocol.

Three compiled programs: the item table (once), the queries (one a history length), and ranks and lists (one
a width of the history, ``ranking.py``). Each user's values come back one batch late, while the
next batch is computed, and are averaged once, at the end, in float64: the numbers do not depend on the batching.

On a mesh the users of a batch are spread over all devices, and the item table's rows over ``model``. The table
is never gathered.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxrec.data.evaluation_batches import EvaluationBatch, evaluation_batches
from jaxrec.data.windows import bucket_lengths
from jaxrec.devices.sharding import (
    USERS,
    WHOLE,
    constrain,
    place,
    place_params,
    place_rows,
    several_devices,
    split_items,
    users_at_once,
)
from jaxrec.lists import sample_queries
from jaxrec.metrics import CUTOFFS
from jaxrec.metrics.diversity import CategoryTable, self_information
from jaxrec.recommender import Recommender, constant_columns
from jaxrec.train.evaluation_result import Evaluation, Group, summarise
from jaxrec.train.ranking import ListFacts, RankSettings, rank_users, sum_counts, zero_counts
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
    batch_size: int | None = None,
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
      targets: ``Targets`` of a split: ``users``, ``starts`` and ``positions`` ``[n]``; row r's history is
        ``log_items[starts[r]:positions[r]]``, its target ``log_items[positions[r]]``. Of a user with several targets
        the mean counts.
      exclude_seen: whether items of the whole history are left out of the ranking.
      key: random key, for a stochastic recommender; ``None`` is ``jax.random.key(0)``.
      num_samples: draws of a stochastic recommender's query that are averaged.
      batch_size: users of one batch, of all devices together; rounded up to a multiple of them. ``None`` chooses
        by the kind of device.
      cutoffs: the K of the metrics.
      with_lists: whether to make lists and judge them; without, only ranks and accuracy (faster).
      item_counts: ``[num_items + 1]`` occurrences in training, for novelty and popularity groups.
      categories: the items' categories, for ``cc@K``, ``f@K`` and ``category_ild@K``.
      chunk: rows of the item table scored at once; ``None`` chooses by memory.
      mesh: devices that share the work, as ``jaxrec.devices.make_mesh`` makes it; ``None`` is where ``params`` lie.
        The figures are those of one device. With several processes, each gives the same arguments and gets
        the same result.

    Raises:
      ValueError: if there is no target, or an argument does not fit the recommender or the mesh.
    """
    starts, positions = np.asarray(targets.starts), np.asarray(targets.positions)
    cutoffs = tuple(sorted(cutoffs))
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; it must be at least 1")
    _check(recommender, len(positions), cutoffs, item_counts, categories)
    key = jax.random.key(0) if key is None else key
    mesh = several_devices(mesh)
    if mesh is not None:
        params, key = place_params(params, mesh), place(key, mesh, WHOLE)
    table = _table(recommender, params, mesh)
    facts = ListFacts(
        None if item_counts is None else jnp.asarray(self_information(item_counts)),
        None if categories is None else jnp.asarray(categories.rows),
    )
    settings = RankSettings(
        recommender.num_items,
        cutoffs if with_lists else (),
        0 if categories is None else categories.count,
        chunk,
        mesh,
        constant_columns(recommender),
    )
    if mesh is not None:
        facts = place(facts, mesh, WHOLE)
    counts = zero_counts(settings, table.shape[0])
    results, at_once = _Results(len(positions)), users_at_once(batch_size, mesh, recommender.target_positions)
    for batch in evaluation_batches(
        log_items,
        starts,
        positions,
        lengths=bucket_lengths(recommender.max_length, recommender.target_positions),
        batch_size=at_once.batch_size,
        pairs=at_once.pairs,
        with_seen=exclude_seen,
        devices=1 if mesh is None else mesh.size,
    ):
        items, users = batch.items, (batch.targets, batch.seen, batch.weights)
        if mesh is not None:
            items, users = place_rows((items, users), mesh)
        query = _query(recommender, params, items, key, num_samples, mesh)
        values, counts = rank_users(settings, query, table, facts, *users, counts)
        results.add(batch, values)
    lengths, target_items = positions - starts, np.asarray(log_items[positions])
    counts = np.asarray(sum_counts(settings, counts))
    users = np.asarray(targets.users)
    return summarise(results.fetch(), counts, cutoffs, users, lengths, target_items, item_counts)


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


__all__ = ["Evaluation", "Group", "evaluate"]
