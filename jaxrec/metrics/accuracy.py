"""Accuracy from the ranks of the targets, and the groups that it is broken down by (numpy, float64).

**Ties.** A target stands below every item scored strictly higher and below half of the items scored equal:
its rank, from 0, is ``higher + equal / 2``. A metric is not linear in the rank, so each is the
*expectation over all orders of the equally scored items*, whose mean rank that is; a constant model then
scores exactly as chance in every metric (HR@K = K / items), and without ties nothing changes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CUTOFFS = (5, 10, 20)
SELECTION_METRIC = "ndcg@10"
"""By which a checkpoint is chosen where nothing else is asked for."""


class Ranks(NamedTuple):
    """How many other items compete with each target.

    Attributes:
      higher: ``[n]`` integers, items scored strictly higher.
      equal: ``[n]`` integers, other items scored equal; -1 where the target itself may not be ranked: it is in no list,
        however short, and every metric is 0.
    """

    higher: np.ndarray
    equal: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """``[n]`` float32 ranks from 0: strictly higher plus half of the equal."""
        return (self.higher + 0.5 * np.maximum(self.equal, 0)).astype(np.float32)


def rank_targets(scores: np.ndarray, targets: np.ndarray) -> Ranks:
    """Ranks from a whole matrix of scores.

    Args:
      scores: ``[n, V]``, -inf where a column may not be ranked.
      targets: ``[n]`` columns of the targets. A target that may not be ranked comes after all others, in no list.
    """
    scores = np.asarray(scores)
    own = np.take_along_axis(scores, np.asarray(targets)[:, None], axis=1)
    equal = np.where(np.isneginf(own[:, 0]), -1, np.sum(scores == own, axis=1) - 1)
    return Ranks(np.sum(scores > own, axis=1), equal)


def _expectation(ranks: Ranks, gains: np.ndarray) -> np.ndarray:
    """The mean of ``gains[place]`` over the places that each target may take; 0 beyond the array, or with no place."""
    sums = np.concatenate([[0.0], np.cumsum(gains)])
    first = np.minimum(ranks.higher, len(gains)).astype(np.int64)
    end = np.minimum(ranks.higher + ranks.equal + 1, len(gains)).astype(np.int64)
    return (sums[end] - sums[first]) / np.maximum(ranks.equal + 1, 1)


def hits(ranks: Ranks, cutoff: int) -> np.ndarray:
    """HR@K (with one target a user also Recall@K): whether the target is among the first K, ``[n]``."""
    return _expectation(ranks, np.ones(cutoff))


def ndcg(ranks: Ranks, cutoff: int) -> np.ndarray:
    """NDCG@K with one target: 1 / log2(rank + 2) for ranks from 0 below K, else 0, ``[n]``."""
    return _expectation(ranks, 1.0 / np.log2(np.arange(cutoff) + 2.0))


def reciprocal_rank(ranks: Ranks, cutoff: int | None = None) -> np.ndarray:
    """1 / (rank + 1) for ranks from 0, ``[n]``; 0 from ``cutoff`` on, if one is given."""
    if cutoff is None:
        cutoff = int(np.max(ranks.higher + ranks.equal, initial=0)) + 1
    return _expectation(ranks, 1.0 / (np.arange(cutoff) + 1.0))


AT_CUTOFF = {"hr": hits, "ndcg": ndcg, "mrr": reciprocal_rank}


def accuracy(ranks: Ranks, cutoffs: Sequence[int] = CUTOFFS) -> dict[str, np.ndarray]:
    """Each user's ``hr@K``, ``ndcg@K``, ``mrr@K`` and ``mrr`` (without a cutoff), ``[n]`` float64 each."""
    values = {}
    for name, function in AT_CUTOFF.items():
        values |= {f"{name}@{cutoff}": function(ranks, cutoff) for cutoff in cutoffs}
    return values | {"mrr": reciprocal_rank(ranks)}


def accuracy_names(cutoffs: Sequence[int]) -> tuple[str, ...]:
    """The metrics that ``accuracy`` gives at these cutoffs."""
    return (*(f"{name}@{cutoff}" for name in AT_CUTOFF for cutoff in cutoffs), "mrr")


def history_length_groups(lengths: np.ndarray, parts: int = 5) -> dict[str, np.ndarray]:
    """Users by quantiles of their history length: name to mask ``[n]``.

    Equal lengths are never parted, so groups differ in size where many users have the same length, and
    there may be fewer than ``parts``.
    """
    lengths = np.asarray(lengths)
    if not len(lengths):
        return {}
    edges = np.unique(np.quantile(lengths, np.arange(1, parts) / parts, method="lower"))
    numbers = np.searchsorted(edges, lengths, side="left")
    masks = [numbers == number for number in np.unique(numbers)]
    return {f"history {_span(lengths[mask])}": mask for mask in masks}


def _span(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low}-{high}"


def popularity_groups(
    targets: np.ndarray, item_counts: np.ndarray, head: float = 0.2
) -> dict[str, np.ndarray]:
    """Users by the popularity of their target: the head is the most frequent ``head`` of all items.

    Args:
      targets: ``[n]`` item ids.
      item_counts: ``[num_items + 1]`` occurrences in the training part, index 0 is padding. Equal counts
        are parted by id.
      head: share of the items.
    """
    item_counts = np.asarray(item_counts)
    order = np.argsort(-item_counts[1:], kind="stable") + 1
    is_head = np.zeros(len(item_counts), bool)
    is_head[order[: math.ceil(head * len(order))]] = True
    mask = is_head[targets]
    names = f"target in head {head:.0%}", f"target in tail {1 - head:.0%}"
    return {name: part for name, part in zip(names, (mask, ~mask), strict=True) if part.any()}


__all__ = [
    "CUTOFFS",
    "SELECTION_METRIC",
    "Ranks",
    "accuracy",
    "accuracy_names",
    "history_length_groups",
    "hits",
    "ndcg",
    "popularity_groups",
    "rank_targets",
    "reciprocal_rank",
]
