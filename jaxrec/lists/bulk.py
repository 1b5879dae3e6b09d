"""Lists for any number of histories: batches of few shapes through the one compiled ``recommend``."""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh

from jaxrec.data.evaluation_batches import EvaluationBatch, history_batches
from jaxrec.data.windows import bucket_lengths
from jaxrec.devices.sharding import WHOLE, place, place_items, place_params, several_devices, users_at_once
from jaxrec.lists.recommending import TopK, recommend
from jaxrec.recommender import Recommender, table_rows
from jaxrec.typing import Params, PRNGKey

FEWEST_CANDIDATES = 128


@dataclasses.dataclass(frozen=True)
class ListRequest:
    """What is asked for, the same for all histories.

    Attributes:
      k: length of the lists.
      exclude_seen: whether items of the whole history are left out.
      candidates: int32 ``[C]`` items to choose from; ``None`` is the catalogue.
      num_samples: draws averaged for a stochastic model.
      with_spread: whether the standard deviation of the scores over the samples is wanted.
      batch_size: histories of one dispatch, of all devices together; rounded up to a multiple of them. ``None``
        chooses by the kind of device.
    """

    k: int
    exclude_seen: bool = True
    candidates: np.ndarray | None = None
    num_samples: int = 1
    with_spread: bool = False
    batch_size: int | None = None


def trained_items(recommender: Recommender, item_counts: np.ndarray) -> np.ndarray:
    """``[V]`` bool: the items that occur in the training part; others are never recommended."""
    allowed = np.zeros(table_rows(recommender.num_items), bool)
    allowed[: len(item_counts)] = item_counts > 0
    allowed[0] = False
    return allowed


def pad_candidates(candidates: np.ndarray) -> np.ndarray:
    """Candidates ``[C]`` as int32, zeros (no item) up to a power of two: lists of other lengths share a program."""
    length = max(FEWEST_CANDIDATES, 1 << (len(candidates) - 1).bit_length())
    return np.pad(candidates.astype(np.int32), (0, length - len(candidates)))


def recommend_histories(
    recommender: Recommender,
    params: Params,
    items: np.ndarray,
    offsets: np.ndarray,
    request: ListRequest,
    *,
    item_counts: np.ndarray,
    key: PRNGKey,
    mesh: Mesh | None = None,
) -> TopK:
    """Lists for n histories, as numpy arrays ``[n, K]``.

    An empty history gets the most popular items, scored by their share of the training interactions; there is
    no randomness in that, and its spread is 0.

    Args:
      recommender: the model.
      params: its parameters.
      items: int32, all histories one after the other, oldest first.
      offsets: int64 ``[n + 1]``.
      request: what is asked for.
      item_counts: ``[num_items + 1]`` interactions of each item in the training part.
      key: random key, for a stochastic model.
      mesh: devices that share the work, see ``jaxrec.recommend``; each process of several gets all lists.
    """
    mesh = several_devices(mesh)
    allowed = trained_items(recommender, item_counts)
    candidates = None if request.candidates is None else pad_candidates(request.candidates)
    if mesh is None:
        allowed, candidates = jax.device_put((allowed, candidates))
    else:
        params = place_params(params, mesh)
        allowed, candidates = place_items(allowed, mesh), place(candidates, mesh, WHOLE)
        key = place(key, mesh, WHOLE)
    count, k = len(offsets) - 1, request.k
    lists = TopK(
        np.zeros((count, k), np.int32),
        np.full((count, k), -np.inf, np.float32),
        np.zeros((count, k), bool),
        np.zeros((count, k), np.float32) if request.with_spread else None,
    )
    at_once = users_at_once(request.batch_size, mesh, recommender.target_positions)
    waiting: list[tuple[EvaluationBatch, TopK]] = []
    for batch in history_batches(
        items,
        offsets[:-1],
        offsets[1:],
        lengths=bucket_lengths(recommender.max_length, recommender.target_positions),
        batch_size=at_once.batch_size,
        pairs=at_once.pairs,
        devices=1 if mesh is None else mesh.size,
    ):
        found = recommend(
            recommender,
            params,
            batch.items,
            k=k,
            key=key,
            exclude=batch.seen if request.exclude_seen else None,
            candidates=candidates,
            allowed=allowed,
            num_samples=request.num_samples,
            with_spread=request.with_spread,
            mesh=mesh,
        )
        waiting.append((batch, found))
        if len(waiting) > 1:  # the device works on one batch while the host collects the one before
            _collect(lists, *waiting.pop(0))
    for batch, found in waiting:
        _collect(lists, batch, found)
    empty = np.flatnonzero(np.diff(offsets) == 0)
    if len(empty):
        popular = popular_items(item_counts, k, request.candidates)
        for target, source in zip(lists[:3], popular[:3], strict=True):
            target[empty] = source
        if lists.spread is not None:
            lists.spread[empty] = 0.0
    return lists


def _collect(lists: TopK, batch: EvaluationBatch, found: TopK) -> None:
    real = batch.rows >= 0
    for target, source in zip(lists, jax.device_get(found), strict=True):
        if target is not None:
            target[batch.rows[real]] = source[real]


def popular_items(item_counts: np.ndarray, k: int, candidates: np.ndarray | None = None) -> TopK:
    """The k items with the most training interactions, ``[k]``; equal ones in ascending id."""
    counts = item_counts.astype(np.float64)
    counts[0] = 0
    if candidates is not None:
        wanted = np.zeros(len(counts), bool)
        wanted[candidates] = True
        counts = np.where(wanted, counts, 0)
    order = np.argsort(-counts, kind="stable")[:k]
    items, scores = np.zeros(k, np.int32), np.full(k, -np.inf, np.float32)
    valid = np.zeros(k, bool)
    valid[: len(order)] = counts[order] > 0
    items[valid] = order[: valid.sum()]
    scores[valid] = counts[order[: valid.sum()]] / max(item_counts[1:].sum(), 1)
    return TopK(items, scores, valid)


__all__ = ["ListRequest", "pad_candidates", "popular_items", "recommend_histories", "trained_items"]
