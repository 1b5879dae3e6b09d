"""The generating process behind the simulated logs: its parameters, its tables and its formulas.

Every item belongs to one category. Let ``h = (h_1, …, h_n)`` be what a user has consumed so far and
``c(i)`` the category of item i. The next item is drawn from

    p(j | h)  ∝  [j not in h] · ( τ · T(h_n, j)  +  (1 − τ) · π_{c(j)}(h) · q(j) )

    T(i, j)    first-order transitions: item i has S successors, the s-th of weight (S + 1 − s), normalised;
               a successor lies in i's own category with probability ``same_category``
    q(j)       popularity within the category: (rank of j within c(j))^(−a), normalised: a long tail
    π_k(h)     the user's interest in category k:
               (κ·α_k + Σ_m γ^(n−m)·[c(h_m) = k]) / (κ + Σ_m γ^(n−m))
    α_k        popularity of categories: (rank of k)^(−b), normalised

with ``τ = transition`` (0 for the first item), ``γ = memory``, ``κ = novelty``,
``a = item_exponent`` and ``b = category_exponent``. The interests are a Pólya urn that forgets: what a
user consumed makes its category likelier, old evidence fades, and so interests differ from user to user
and drift along a history. A user's hidden state is thereby a function of the observed history: p(j | h) is
known exactly from the history alone, and no model of any kind can rank better in expectation than by it
(``jaxrec.data.oracle``). Item ids are a random permutation, so that an id tells nothing.

The process is ours; it copies no published simulator.
"""

import dataclasses
import functools
import hashlib
from typing import NamedTuple

import numpy as np

_REDRAWS = 16


class ProcessTables(NamedTuple):
    """The process as arrays, items being *slots* (0 to V−1) sorted by category, then by popularity.

    Attributes:
      category: ``[V]`` int32, the category of each slot.
      first_slot: ``[K+1]`` int64, where each category's slots begin; K categories.
      share: ``[V]`` float64, q, the popularity within the category.
      cumulative: ``[V]`` float64, category + running sum of ``share``: one increasing table.
      category_share: ``[K]`` float64, α.
      category_cumulative: ``[K]`` float64, running sum of α.
      successors: ``[V, S]`` int32, slots.
      successor_weights: ``[S]`` float64.
      item_of_slot: ``[V]`` int32, the item id (1 to V) of each slot.
    """

    category: np.ndarray
    first_slot: np.ndarray
    share: np.ndarray
    cumulative: np.ndarray
    category_share: np.ndarray
    category_cumulative: np.ndarray
    successors: np.ndarray
    successor_weights: np.ndarray
    item_of_slot: np.ndarray

    def draw_slots(self, categories: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Draws a slot by popularity within each of ``categories`` (``[n]``), from uniforms ``[n]``."""
        slots = np.searchsorted(self.cumulative, categories + uniform, side="right")
        return np.minimum(slots, self.first_slot[categories + 1] - 1)

    def draw_categories(self, uniform: np.ndarray) -> np.ndarray:
        """Draws categories by their popularity, from uniforms ``[n]``."""
        last = len(self.category_cumulative) - 1
        return np.minimum(np.searchsorted(self.category_cumulative, uniform, side="right"), last)


@dataclasses.dataclass(frozen=True)
class SimulatedProcess:
    """Parameters of the process (module docstring); equal parameters make equal data on any machine.

    Attributes:
      num_items: V, items of the catalogue.
      seed: fixes the process (who succeeds whom, which id is popular) and the users drawn from it.
      num_categories: K; None means about √V.
      item_exponent: a, how unequal items of one category are (0: equal).
      category_exponent: b, how unequal categories are (0: equal).
      transition: τ, how often the next item follows the last one's transitions.
      num_successors: S, successors of an item.
      same_category: how often a successor lies in the category of its item.
      memory: γ, what is left of a piece of evidence one item later; 0.9 remembers about ten items.
      novelty: κ, weight of the prior against one remembered item.
      mean_length: mean history length in items, about (rounding and ``max_length`` take a little off).
      min_length: shortest history. Lengths above it are log-normal with σ = 1: a long tail.
      max_length: longest history; None means min(200, V/2). At most V/2 unless ``repeats``.
      repeats: whether a user may consume an item twice.
    """

    num_items: int = 500
    seed: int = 0
    num_categories: int | None = None
    item_exponent: float = 0.9
    category_exponent: float = 0.5
    transition: float = 0.5
    num_successors: int = 4
    same_category: float = 0.8
    memory: float = 0.9
    novelty: float = 1.0
    mean_length: float = 25.0
    min_length: int = 5
    max_length: int | None = None
    repeats: bool = False

    def __post_init__(self):
        if self.num_items < 2:
            raise ValueError(f"num_items is {self.num_items}; a simulated catalogue needs at least 2 items.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or above.")
        if not 1 <= self.categories <= self.num_items:
            raise ValueError(
                f"num_categories is {self.num_categories}; it must be from 1 to num_items ({self.num_items})."
            )
        if not 0 <= self.transition < 1:
            raise ValueError(f"transition is {self.transition}; it must be from 0 to below 1.")
        if not 0 <= self.same_category <= 1:
            raise ValueError(f"same_category is {self.same_category}; it is a probability, from 0 to 1.")
        if not 0 < self.memory < 1:
            raise ValueError(f"memory is {self.memory}; it must lie strictly between 0 and 1.")
        if (
            self.novelty <= 0
            or self.num_successors < 1
            or min(self.item_exponent, self.category_exponent) < 0
        ):
            raise ValueError(
                f"novelty ({self.novelty}) must be above 0, num_successors ({self.num_successors}) "
                f"at least 1 and the exponents ({self.item_exponent}, {self.category_exponent}) at least 0."
            )
        self._check_lengths()

    def _check_lengths(self):
        if not 1 <= self.min_length <= self.longest or self.mean_length < self.min_length:
            raise ValueError(
                f"min_length {self.min_length}, mean_length {self.mean_length} and the longest history "
                f"{self.longest} must be in this order, from 1 up; give max_length or other lengths."
            )
        if not self.repeats and self.longest > max(1, self.num_items // 2):
            raise ValueError(
                f"max_length is {self.longest} but no item comes twice and there are only "
                f"{self.num_items} items; lower it to {self.num_items // 2} or set repeats=True."
            )

    @property
    def categories(self) -> int:
        """K, with the default resolved."""
        return max(1, round(self.num_items**0.5)) if self.num_categories is None else self.num_categories

    @property
    def longest(self) -> int:
        """The longest history, with the default resolved."""
        return min(200, max(1, self.num_items // 2)) if self.max_length is None else self.max_length

    @property
    def name(self) -> str:
        """A name that tells processes apart: size, seed and a hash of all parameters."""
        digest = hashlib.sha256(repr(self).encode()).hexdigest()[:8]
        return f"simulated-{self.num_items}-items-seed-{self.seed}-{digest}"

    @functools.cached_property
    def tables(self) -> ProcessTables:
        """The process as arrays; built on first use, O(V·S) memory."""
        return build_tables(self)


def build_tables(process: SimulatedProcess) -> ProcessTables:
    """Draws the process's tables from its seed."""
    generator = np.random.default_rng([process.seed, 0])
    num_items, num_categories = process.num_items, process.categories
    first_slot = np.linspace(0, num_items, num_categories + 1).astype(np.int64)
    sizes = np.diff(first_slot)
    category = np.repeat(np.arange(num_categories, dtype=np.int32), sizes)
    rank = np.arange(num_items) - first_slot[category]
    weight = (rank + 1.0) ** -process.item_exponent
    share = weight / np.add.reduceat(weight, first_slot[:-1])[category]
    running = np.cumsum(share)
    before = np.concatenate([[0.0], running])[first_slot[:-1]]
    cumulative = category + (running - before[category])
    category_weight = np.arange(1.0, num_categories + 1) ** -process.category_exponent
    category_share = category_weight / category_weight.sum()
    successor_weights = np.arange(process.num_successors, 0, -1, dtype=np.float64)
    tables = ProcessTables(
        category=category,
        first_slot=first_slot,
        share=share,
        cumulative=cumulative,
        category_share=category_share,
        category_cumulative=np.cumsum(category_share),
        successors=np.empty((num_items, 0), np.int32),
        successor_weights=successor_weights / successor_weights.sum(),
        item_of_slot=(generator.permutation(num_items) + 1).astype(np.int32),
    )
    return tables._replace(successors=_draw_successors(process, tables, generator))


def _draw_successors(process: SimulatedProcess, tables: ProcessTables, generator: np.random.Generator):
    """``[V, S]`` int32: successors by popularity, distinct and not the item itself where that is possible.

    A category too small to have S other items keeps a duplicate after ``_REDRAWS`` attempts; the
    formulas hold all the same, T(i, j) being a sum over the list.
    """
    count = process.num_items
    successors = np.empty((count, process.num_successors), np.int32)
    for place in range(process.num_successors):
        pending = np.arange(count)
        for _ in range(_REDRAWS):
            uniform = generator.random((3, len(pending)))
            own = uniform[0] < process.same_category
            categories = np.where(own, tables.category[pending], tables.draw_categories(uniform[1]))
            drawn = tables.draw_slots(categories, uniform[2]).astype(np.int32)
            successors[pending, place] = drawn
            taken = (successors[pending, :place] == drawn[:, None]).any(axis=1) | (drawn == pending)
            pending = pending[taken]
            if not len(pending):
                break
    return successors


__all__ = ["ProcessTables", "SimulatedProcess", "build_tables"]
