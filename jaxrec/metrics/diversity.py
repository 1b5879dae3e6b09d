"""What lists of recommendations are like besides accurate: spread over the catalogue, unlike, novel, varied.

Of each list (on the device, ``list_metrics``) and of all lists together (``concentration``).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.typing import Array

CATEGORY_BYTES = 2**24


class CategoryTable(NamedTuple):
    """Categories of the items.

    Attributes:
      rows: ``[num_items + 1, A]`` int32, each item's categories counted from 1, filled up with 0.
      count: categories that there are; a Python integer.
    """

    rows: Array
    count: int


def category_table(offsets: np.ndarray, categories: np.ndarray, count: int | None = None) -> CategoryTable:
    """Packs ``ItemMetadata.category_table()``: item i has ``categories[offsets[i]:offsets[i + 1]]``.

    Args:
      offsets: ``[num_items + 2]``; id 0 is padding and has none.
      categories: ``[total]``, counted from 0.
      count: categories that there are; ``None`` takes those that occur.
    """
    lengths = np.diff(offsets)
    rows = np.zeros((len(lengths), max(1, int(lengths.max(initial=1)))), np.int32)
    items = np.repeat(np.arange(len(lengths)), lengths)
    rows[items, np.arange(len(categories)) - np.repeat(offsets[:-1], lengths)] = np.asarray(categories) + 1
    return CategoryTable(rows, int(rows.max()) if count is None else count)


def self_information(item_counts: np.ndarray) -> np.ndarray:
    """−log2 of each item's share of the training interactions, ``[num_items + 1]`` float32.

    An item never trained on counts as one seen once (our reading: its information would be infinite).
    """
    counts = np.asarray(item_counts, np.float64)
    total = max(counts[1:].sum(), 1.0)
    information = np.log2(total) - np.log2(np.maximum(counts, 1.0))
    information[0] = 0.0
    return information.astype(np.float32)


def concentration(counts: np.ndarray) -> dict[str, float]:
    """Of how often each item was recommended, ``[num_items]``.

    ``coverage``: share of the items recommended at all. ``gini``: Gini coefficient over all items, 0 if
    all are recommended equally often. ``entropy``: of their distribution, in bits.
    """
    counts = np.sort(np.asarray(counts, np.float64))
    total, number = counts.sum(), len(counts)
    if total == 0:
        return {"coverage": 0.0, "gini": 0.0, "entropy": 0.0}
    weights = 2.0 * np.arange(1, number + 1) - number - 1
    shares = counts[counts > 0] / total
    return {
        "coverage": len(shares) / number,
        "gini": float(weights @ counts / (number * total)),
        "entropy": float(-np.sum(shares * np.log2(shares))),
    }


def list_metrics(
    items: Array,
    table: Array,
    cutoffs: Sequence[int],
    information: Array | None = None,
    categories: CategoryTable | None = None,
) -> dict[str, Array]:
    """Metrics of each list at each cutoff, ``[B]`` float32: ``vector_metrics`` with the vectors looked up.

    Args:
      items: ``[B, K]`` int32, best first, 0 where the list has ended; K at least the largest cutoff.
      table: ``[V, Q]``, the items in the ranking space.
      cutoffs: lengths at which the lists are judged.
      information: ``[num_items + 1]`` from ``self_information``, or ``None``.
      categories: or ``None``.
    """
    return vector_metrics(items, table[items[:, : max(cutoffs)]], cutoffs, information, categories)


def vector_metrics(
    items: Array,
    vectors: Array,
    cutoffs: Sequence[int],
    information: Array | None = None,
    categories: CategoryTable | None = None,
) -> dict[str, Array]:
    """Metrics of each list at each cutoff, ``[B]`` float32.

    ``ild@K``: intra-list distance, 1 − cosine of the items' vectors, the mean over pairs. ``novelty@K``:
    mean self-information. ``cc@K``: distinct categories of the list over all categories.
    ``category_ild@K``: 1 − Jaccard similarity of the items' sets of categories, the mean over pairs (two
    items without any category are alike). Lists that are not full count what they hold; without a pair
    the distance is 0.

    Args:
      items: ``[B, K]`` int32, best first, 0 where the list has ended; K at least the largest cutoff.
      vectors: ``[B, K, Q]``, the lists' items in the ranking space, at least to the largest cutoff.
      cutoffs: lengths at which the lists are judged.
      information: ``[num_items + 1]`` from ``self_information``, or ``None``.
      categories: or ``None``.
    """
    valid = items > 0
    values = {f"ild@{cutoff}": _cosine_distance(vectors, valid, cutoff) for cutoff in cutoffs}
    if information is not None:
        bits = jnp.where(valid, information[items], 0.0)
        values |= {f"novelty@{c}": _mean(bits[:, :c], valid[:, :c]) for c in cutoffs}
    if categories is not None:
        categories = categories._replace(rows=jnp.asarray(categories.rows))
        of_list = jax.vmap(lambda items: _category_metrics(items, categories, tuple(cutoffs)))
        batch = max(1, CATEGORY_BYTES // (4 * items.shape[1] * categories.count))
        if items.shape[0] <= batch:
            return values | of_list(items)
        one = lambda row: jax.tree.map(lambda value: value[0], of_list(row[None]))  # noqa: E731
        values |= jax.lax.map(one, items, batch_size=batch)
    return values


def _mean(values: Array, valid: Array) -> Array:
    return jnp.sum(values, axis=-1) / jnp.maximum(jnp.sum(valid, axis=-1), 1)


def _cosine_distance(vectors: Array, valid: Array, cutoff: int) -> Array:
    """1 − mean cosine over the pairs of the first ``cutoff`` items, ``[B]``: from the norm of their sum."""
    vectors = vectors[:, :cutoff].astype(jnp.float32)
    norms = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    units = vectors / jnp.where(norms > 0, norms, 1.0) * valid[:, :cutoff, None]
    squares = jnp.sum(jnp.square(jnp.sum(units, axis=1)), axis=-1) - jnp.sum(jnp.square(units), axis=(1, 2))
    number = jnp.sum(valid[:, :cutoff], axis=-1)
    pairs = number * (number - 1)
    return jnp.where(pairs > 0, 1.0 - squares / jnp.maximum(pairs, 1), 0.0)


def _category_metrics(items: Array, categories: CategoryTable, cutoffs: tuple[int, ...]) -> dict[str, Array]:
    """``cc`` and ``category_ild`` of one list ``[K]``."""
    members = jnp.where(items[:, None] > 0, categories.rows[items], 0)
    belongs = jnp.zeros((items.shape[0], categories.count + 1), jnp.float32)
    belongs = belongs.at[jnp.arange(items.shape[0])[:, None], members].set(1.0)[:, 1:]
    sizes = jnp.sum(belongs, axis=-1)
    shared = jnp.einsum("ic,jc->ij", belongs, belongs, precision="highest")
    union = sizes[:, None] + sizes[None, :] - shared
    distance = jnp.where(union > 0, 1.0 - shared / jnp.maximum(union, 1.0), 0.0)
    valid = items > 0
    apart = valid[:, None] & valid[None, :] & ~jnp.eye(items.shape[0], dtype=bool)
    values = {}
    for cutoff in cutoffs:
        pairs = jnp.sum(apart[:cutoff, :cutoff])
        total = jnp.sum(jnp.where(apart, distance, 0.0)[:cutoff, :cutoff])
        values[f"category_ild@{cutoff}"] = total / jnp.maximum(pairs, 1)
        values[f"cc@{cutoff}"] = jnp.sum(jnp.max(belongs[:cutoff], axis=0)) / categories.count
    return values


def f_score(hit_rate: float, ndcg: float, category_coverage: float) -> float:
    """F@K = 2 q CC / (q + CC) with q = (HR@K + NDCG@K) / 2; 0 where both are 0."""
    quality = (hit_rate + ndcg) / 2
    total = quality + category_coverage
    return 2 * quality * category_coverage / total if total > 0 else 0.0


__all__ = [
    "CategoryTable",
    "category_table",
    "concentration",
    "f_score",
    "list_metrics",
    "self_information",
    "vector_metrics",
]
