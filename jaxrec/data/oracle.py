"""The best achievable ranking of a simulated log: by the true probability of the next item.

Source: ours; the formulas are those of ``jaxrec.data.simulated_process``.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from jaxrec.data.simulated_process import SimulatedProcess

if TYPE_CHECKING:
    from jaxrec.data.splits import Split, Targets

_CELLS = 2**22
"""Cells of the largest [rows, V] table of probabilities held at once (float64: 32 MiB)."""


class OracleScore(NamedTuple):
    """What ranking by the true probability reaches on a set of targets.

    ``hr`` and ``ndcg`` are measured on the targets that were in fact drawn, as any model's metrics are;
    ``expected_hr`` and ``expected_ndcg`` are their means over all targets the process could have drawn
    after these histories: the upper bound of any recommender's expectation, with less noise.

    Attributes:
      hr: mean of [rank < k].
      ndcg: mean of [rank < k] / log2(rank + 2), rank from 0.
      expected_hr: mean of the probability of the k likeliest items.
      expected_ndcg: mean of Σ_r p_(r) / log2(r + 2) over the k likeliest items.
      rows: number of targets.
    """

    hr: float
    ndcg: float
    expected_hr: float
    expected_ndcg: float
    rows: int


def next_item_probabilities(process: SimulatedProcess, histories: Sequence[np.ndarray]) -> np.ndarray:
    """p(j | h) of the process for each history.

    Args:
      process: the process.
      histories: B arrays of item ids (1 to V), oldest first; an empty one is allowed.

    Returns:
      ``[B, V + 1]`` float64, rows summing to 1; column j is item j, column 0 (padding) is 0, and so are
      the items of the history unless ``process.repeats``.
    """
    tables = process.tables
    slot_of_item = np.empty(process.num_items + 1, np.int64)
    slot_of_item[tables.item_of_slot] = np.arange(process.num_items)
    lengths = np.array([len(history) for history in histories], np.int64)
    flat = np.concatenate([np.asarray(history, np.int64) for history in histories] or [np.empty(0, np.int64)])
    if flat.size and not (flat.min() >= 1 and flat.max() <= process.num_items):
        raise ValueError(
            f"A history holds item ids from {flat.min()} to {flat.max()}; "
            f"this process has 1 to {process.num_items}."
        )
    slots = slot_of_item[flat]
    rows = np.repeat(np.arange(len(lengths)), lengths)
    age = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(flat))
    shares = slot_shares(process, slots, rows, age, len(lengths))
    probabilities = np.zeros((len(lengths), process.num_items + 1))
    probabilities[:, tables.item_of_slot] = shares / shares.sum(axis=1, keepdims=True)
    return probabilities


def slot_shares(
    process: SimulatedProcess, slots: np.ndarray, rows: np.ndarray, age: np.ndarray, num_rows: int
) -> np.ndarray:
    """The bracket of p(j | h), seen items 0: ``[num_rows, V]`` float64 over slots, not normalised.

    Args:
      process: the process.
      slots: ``[n]`` the consumed slots of all rows.
      rows: ``[n]`` whose they are.
      age: ``[n]`` 0 for the newest of a row, 1 for the one before it, …
      num_rows: number of rows.
    """
    tables = process.tables
    kinds = len(tables.category_share)
    cells = rows * kinds + tables.category[slots]
    evidence = np.bincount(cells, weights=process.memory**age, minlength=num_rows * kinds)
    interests = process.novelty * tables.category_share + evidence.reshape(num_rows, kinds)
    interests /= interests.sum(axis=1, keepdims=True)
    newest = np.flatnonzero(age == 0)
    rest = np.ones((num_rows, 1))
    rest[rows[newest]] -= process.transition
    shares = (rest * interests)[:, tables.category] * tables.share
    follow = process.transition * tables.successor_weights
    np.add.at(shares, (rows[newest][:, None], tables.successors[slots[newest]]), follow)
    if not process.repeats:
        shares[rows, slots] = 0.0
    return shares


def oracle_score(
    process: SimulatedProcess, split: "Split", part: Literal["validation", "test"] = "test", *, k: int = 10
) -> OracleScore:
    """The best achievable HR@k and NDCG@k on a split of a log drawn from ``process``.

    Seen items are excluded, unless the process repeats items. The log may have been filtered: its item
    ids are brought back to the process's through its external ids, and items that the filter removed
    are not ranked (the histories then miss them too, so the bound is exact only for the log as drawn).

    Args:
      process: the process that the log was drawn from.
      split: a ``Split`` of the log.
      part: ``"validation"`` or ``"test"``.
      k: length of the list.

    Raises:
      ValueError: k is below 1, the part is empty, or the log holds items that the process does not know.
    """
    log, targets = split.interactions, split.targets(part)
    if k < 1:
        raise ValueError(f"k is {k}; a list needs at least 1 item.")
    if not len(targets.positions):
        raise ValueError(f"The {part} part of {log.name} has no targets, so there is nothing to score.")
    original = np.asarray(log.item_ids.external(np.arange(log.num_items)), np.int64)
    if original.min() < 1 or original.max() > process.num_items:
        raise ValueError(
            f"{log.name} has item ids from {original.min()} to {original.max()}, this process has 1 to "
            f"{process.num_items}; pass the process that the log was drawn from."
        )
    sums = np.zeros(4)
    for histories, answers in _batches(log.items, targets, original, max(1, _CELLS // process.num_items)):
        probabilities = next_item_probabilities(process, histories)[:, original]
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        sums += _sums(probabilities, answers - 1, k)
    means = sums / len(targets.positions)
    return OracleScore(*(float(value) for value in means), rows=len(targets.positions))


def _sums(probabilities: np.ndarray, answers: np.ndarray, k: int) -> np.ndarray:
    """Sums over rows of the four scores, from ``[B, n]`` probabilities and ``[B]`` columns of the targets."""
    answer = np.take_along_axis(probabilities, answers[:, None], axis=1)
    ties = (probabilities == answer).sum(axis=1) - 1
    ranks = (probabilities > answer).sum(axis=1) + 0.5 * ties
    found = ranks < k
    k = min(k, probabilities.shape[1])
    likeliest = np.sort(np.partition(probabilities, -k, axis=1)[:, -k:], axis=1)[:, ::-1]
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    return np.array(
        [found.sum(), (found / np.log2(ranks + 2)).sum(), likeliest.sum(), (likeliest * discount).sum()]
    )


def _batches(
    items: np.ndarray, targets: "Targets", original: np.ndarray, size: int
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Histories as the process's item ids, and the targets as the log's, ``size`` rows at a time."""
    for first in range(0, len(targets.positions), size):
        starts, positions = targets.starts[first : first + size], targets.positions[first : first + size]
        histories = [
            original[np.asarray(items[start:end]) - 1] for start, end in zip(starts, positions, strict=True)
        ]
        yield histories, np.asarray(items[positions])


__all__ = ["OracleScore", "next_item_probabilities", "oracle_score", "slot_shares"]
