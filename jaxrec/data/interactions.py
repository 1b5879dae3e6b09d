"""The log of interactions: who took what, in which order, as flat arrays."""

import dataclasses
import functools
import hashlib
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from jaxrec.data import storage
from jaxrec.data.grouping import first_appearance, k_core
from jaxrec.data.identifiers import IdMap
from jaxrec.data.items import ItemMetadata

HASHED_AT_ONCE = 1 << 24
MOST_ITEMS = 2**31 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """All users' histories, one after the other; U users, N interactions.

    The arrays may lie on disk (memory-mapped) and are never written to. Internal numbering: users are
    rows 0 to U - 1, items have the ids 1 to ``num_items`` (0 is padding everywhere in jaxrec).

    Attributes:
      items: ``[N]`` int32 item ids; each user's run is oldest first.
      offsets: ``[U + 1]`` int64; user u has ``items[offsets[u]:offsets[u + 1]]``.
      users: external ids of the users, row u for user u.
      item_ids: external ids of the items, row i - 1 for item i.
      times: ``[N]`` int64 or float64 in the unit of the source, not decreasing within a user; None if
        the source has none.
      metadata: titles and categories in the order of ``item_ids``, or None.
      name: what the log is called in results.
    """

    items: np.ndarray
    offsets: np.ndarray
    users: IdMap
    item_ids: IdMap
    times: np.ndarray | None = None
    metadata: ItemMetadata | None = None
    name: str = "log"

    def __post_init__(self):
        if self.items.dtype != np.int32 or self.items.ndim != 1:
            raise ValueError(f"items must be [N] int32, and are {self.items.shape} {self.items.dtype}")
        if self.offsets.dtype != np.int64 or self.offsets.ndim != 1 or len(self.offsets) < 1:
            raise ValueError(
                f"offsets must be [U + 1] int64, and are {self.offsets.shape} {self.offsets.dtype}"
            )
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.items):
            raise ValueError(
                f"offsets must run from 0 to the {len(self.items)} interactions, and run from "
                f"{self.offsets[0]} to {self.offsets[-1]}"
            )
        if len(self.users) != self.num_users:
            raise ValueError(f"there are {self.num_users} histories and {len(self.users)} user ids")
        if self.times is not None and self.times.shape != self.items.shape:
            raise ValueError(f"there are {len(self.items)} interactions and {self.times.shape} times")
        if self.metadata is not None and len(self.metadata) != self.num_items:
            raise ValueError(
                f"metadata describes {len(self.metadata)} items and the log has {self.num_items}; "
                "attach it with log.with_metadata(...), which aligns it"
            )

    @classmethod
    def from_arrays(
        cls,
        items: np.ndarray,
        offsets: np.ndarray,
        *,
        users: IdMap | None = None,
        item_ids: IdMap | None = None,
        times: np.ndarray | None = None,
        metadata: ItemMetadata | None = None,
        name: str = "log",
    ) -> "Interactions":
        """A log from flat arrays that are internal ids already; every value is checked.

        Without ``users`` and ``item_ids`` the external ids are the integers from 1; the number of
        items is then the highest id. Raises ValueError on ids that are no integers or outside 1 to ``num_items``,
        decreasing offsets or times that run backwards within a user.
        """
        items = np.asarray(items)
        if len(items) and items.dtype.kind not in "iu":
            raise ValueError(f"items must be integers, and have the type {items.dtype}; see from_sequences")
        offsets = np.ascontiguousarray(offsets, np.int64)
        highest = int(items.max(initial=0))
        if item_ids is None and highest > MOST_ITEMS:
            raise ValueError(
                f"item id {highest} is above {MOST_ITEMS}; internal ids are 1 to the number of items, and"
                " from_sequences takes others"
            )
        item_ids = IdMap.range(highest) if item_ids is None else item_ids
        users = IdMap.range(len(offsets) - 1) if users is None else users
        if len(items) and (items.min() < 1 or highest > len(item_ids)):
            raise ValueError(
                f"item ids must be 1 to {len(item_ids)} (0 is padding), not {items.min()} to {highest}"
            )
        if np.any(np.diff(offsets) < 0):
            raise ValueError(
                f"offsets must not decrease, and do at user {np.flatnonzero(np.diff(offsets) < 0)[0]}"
            )
        if times is not None:
            times = np.asarray(times)
            times = np.ascontiguousarray(times, np.float64 if times.dtype.kind == "f" else np.int64)
        items = np.ascontiguousarray(items, np.int32)
        log = cls(items, offsets, users, item_ids, times, None, name)
        if times is not None:
            backwards = np.flatnonzero(times[1:] < times[:-1]) + 1
            inside = backwards[~np.isin(backwards, offsets)]
            if len(inside):
                user = int(np.searchsorted(offsets, inside[0], side="right")) - 1
                raise ValueError(
                    f"times must not decrease within a user, and do for user row {user}; sort the log"
                )
        return log if metadata is None else log.with_metadata(metadata)

    @classmethod
    def from_sequences(
        cls, sequences: Iterable[Sequence], *, users: Iterable | None = None, name: str = "log"
    ) -> "Interactions":
        """A log from histories of external item ids (integers or text), oldest first.

        Floats that are whole numbers, as pandas makes of integers beside a gap, are integers. Users are numbered
        1, 2, ... unless ``users`` gives their ids. Items are numbered in order of first appearance. Raises ValueError
        on None, NaN and other floats.
        """
        sequences = [list(sequence) for sequence in sequences]
        offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
        flat = [item for sequence in sequences for item in sequence]
        for place, item in enumerate(flat):
            if isinstance(item, (float, np.floating)) and item.is_integer():
                flat[place] = int(item)
            elif item is None or isinstance(item, (float, np.floating)):
                raise ValueError(
                    f"item {place + 1} of the sequences is {item}; leave such items out, or give integers or text"
                )
        if not all(isinstance(item, (int, np.integer)) for item in flat):
            flat = [str(item) for item in flat]
        names: dict = {}
        codes = np.fromiter((names.setdefault(item, len(names)) for item in flat), np.int32, len(flat))
        item_ids = IdMap.trusted(pl.Series("id", list(names), dtype=pl.String if not flat else None))
        return cls(
            codes + np.int32(1),
            offsets,
            IdMap.range(len(sequences)) if users is None else IdMap(users),
            item_ids,
            name=name,
        )

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        """Items of the catalogue; ids are 1 to ``num_items``."""
        return len(self.item_ids)

    @property
    def num_interactions(self) -> int:
        """N."""
        return len(self.items)

    @property
    def lengths(self) -> np.ndarray:
        """``[U]`` int64, the number of interactions of each user."""
        return np.diff(self.offsets)

    def history(self, user_id) -> np.ndarray:
        """Internal ids of one user's items, oldest first; raises KeyError for an unknown external id.

        ``Run.recommend`` takes external ids: those of ``history_ids``.
        """
        row = int(self.users.lookup([user_id])[0])
        if row < 0:
            raise KeyError(f"user {user_id!r} is not among the {self.num_users} users of {self.name}")
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    def history_ids(self, user_id) -> list:
        """External ids of one user's items, oldest first, as ``Run.recommend`` takes them; else as ``history``."""
        return self.item_ids.external(self.history(user_id) - 1).to_list()

    def fingerprint(self) -> str:
        """16 hex digits over the sizes and the ordered sequences, in internal ids.

        The same for a log in memory and on disk, on any machine, and whatever the external ids, times
        and metadata are. Computed once and kept with a saved log.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        digest.update(np.asarray([self.num_users, self.num_items, self.num_interactions], "<i8").tobytes())
        for array, dtype in ((self.offsets, "<i8"), (self.items, "<i4")):
            for start in range(0, len(array), HASHED_AT_ONCE):
                digest.update(np.ascontiguousarray(array[start : start + HASHED_AT_ONCE], dtype).data)
        return digest.hexdigest()

    def summary(self) -> dict:
        """Sizes, lengths, density, times and fingerprint as plain values."""
        lengths = self.lengths
        cells = self.num_users * self.num_items
        summary = {
            "name": self.name,
            "users": self.num_users,
            "items": self.num_items,
            "interactions": self.num_interactions,
            "length_min": int(lengths.min(initial=np.iinfo(np.int64).max)) if len(lengths) else 0,
            "length_median": float(np.median(lengths)) if len(lengths) else 0.0,
            "length_mean": float(lengths.mean()) if len(lengths) else 0.0,
            "length_max": int(lengths.max(initial=0)),
            "density": self.num_interactions / cells if cells else 0.0,
            "fingerprint": self.fingerprint(),
        }
        if self.times is not None and len(self.times):
            summary |= {"time_min": self.times.min().item(), "time_max": self.times.max().item()}
        return summary

    def __repr__(self) -> str:
        extras = [name for name in ("times", "metadata") if getattr(self, name) is not None]
        return (
            f"Interactions({self.name}: {self.num_users:,} users, {self.num_items:,} items, "
            f"{self.num_interactions:,} interactions{''.join(', ' + extra for extra in extras)})"
        )

    def filter(self, min_user: int = 5, min_item: int = 5) -> "Interactions":
        """The iterated k-core: users with ``min_user`` and items with ``min_item`` interactions or more.

        Users and items below the bound are dropped in turn until nothing drops any more. Users keep
        their order; items are numbered anew in order of first appearance; external ids, times and
        metadata follow. Raises ValueError if nothing is left.
        """
        rows = k_core(self.items, self.offsets, min_user, min_item, self.num_items)
        if rows is None and self.num_users and self.lengths.all() and self._every_item_appears():
            return self
        rows = np.ones(self.num_interactions, bool) if rows is None else rows
        kept = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])[self.offsets]
        lengths = np.diff(kept)
        if not lengths.any():
            raise ValueError(
                f"filter(min_user={min_user}, min_item={min_item}) leaves none of the {self.num_users} "
                f"users, {self.num_items} items and {self.num_interactions} interactions of {self.name} "
                f"(longest history: {self.lengths.max(initial=0)}); lower min_user or min_item"
            )
        users = np.flatnonzero(lengths)
        codes, appeared = first_appearance(self.items[rows] - np.int32(1), self.num_items)
        item_ids = self.item_ids.take(appeared)
        return Interactions(
            codes + np.int32(1),
            np.concatenate([[0], np.cumsum(lengths[users])]).astype(np.int64),
            self.users.take(users),
            item_ids,
            None if self.times is None else self.times[rows],
            None if self.metadata is None else self.metadata.take(appeared, item_ids),
            self.name,
        )

    def _every_item_appears(self) -> bool:
        return bool(np.bincount(self.items, minlength=self.num_items + 1)[1:].all())

    def with_metadata(self, metadata: ItemMetadata | None) -> "Interactions":
        """The same log with titles and categories, aligned by external item id; warns if no item has any."""
        aligned = None if metadata is None else metadata.align(self.item_ids)
        if metadata is not None and not (metadata.item_ids.lookup(self.item_ids.values) >= 0).any():
            warnings.warn(
                f"none of the {self.num_items} items of {self.name} is among the {len(metadata)} with titles and"
                f" categories (such as {_some(self.item_ids)} here, {_some(metadata.item_ids)} there); are the ids the"
                " same?",
                stacklevel=2,
            )
        return dataclasses.replace(self, metadata=aligned)

    def save(self, directory: str | Path) -> Path:
        """Writes the log as a directory that ``Interactions.open`` maps into memory; see ``storage``."""
        return storage.save(self, directory)

    @classmethod
    def open(cls, directory: str | Path) -> "Interactions":
        """Opens a saved log without reading it: at once, whatever its size; see ``storage``."""
        parts, fingerprint = storage.open_parts(directory)
        log = cls(**parts)
        log.__dict__["_fingerprint"] = fingerprint
        return log


def _some(ids: IdMap) -> str:
    return ", ".join(map(repr, ids.values[:2].to_list()))


__all__ = ["Interactions"]
