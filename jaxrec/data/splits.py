"""Train, validation and test parts of a log: leave-one-out and global temporal, as positions in it."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from jaxrec.data.interactions import Interactions
from jaxrec.data.moments import Moment, as_number, check_fractions

if TYPE_CHECKING:
    from jaxrec.data.source import DataConfig

Part = Literal["validation", "test"]
COUNTED_AT_ONCE = 1 << 24
LEAVE_ONE_OUT = "leave-one-out"


class Targets(NamedTuple):
    """What is to be predicted, one row a target; row r's history is ``items[starts[r]:positions[r]]``.

    Attributes:
      users: ``[n]`` int32 rows of the users.
      starts: ``[n]`` int64, where the user's history begins in the flat log.
      positions: ``[n]`` int64, where the target item stands in the flat log.
    """

    users: np.ndarray
    starts: np.ndarray
    positions: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A log and which of its interactions train, validate and test; nothing is copied.

    Attributes:
      interactions: the log.
      name: the kind of split with its parameters, for the protocol card.
      train_ends: ``[U]`` int64; user u trains on ``items[offsets[u]:train_ends[u]]``.
      validation: ``[n]`` int64, positions of the validation targets in the flat log, ascending.
      test: ``[m]`` int64, positions of the test targets, ascending.
      loaded_from: the data section of a config from which ``load_split`` made it; ``None`` for a split made otherwise,
        also from one that was loaded (``dataclasses.replace`` does not take it over).
    """

    interactions: Interactions
    name: str
    train_ends: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    loaded_from: "DataConfig | None" = dataclasses.field(default=None, init=False)

    def __post_init__(self):
        if self.train_ends.shape != (self.interactions.num_users,):
            raise ValueError(
                f"train_ends has shape {self.train_ends.shape} for {self.interactions.num_users} users"
            )

    def as_loaded_from(self, source: "DataConfig") -> "Split":
        """The same split, with the data section that gives it again."""
        same = dataclasses.replace(self)
        object.__setattr__(same, "loaded_from", source)
        return same

    def targets(self, part: Part) -> Targets:
        """The targets of a part, each with the whole history before it (in test, validation items too)."""
        if part not in ("validation", "test"):
            raise ValueError(f"there is no part {part!r}; choose 'validation' or 'test'")
        positions = self.validation if part == "validation" else self.test
        offsets = self.interactions.offsets
        users = np.searchsorted(offsets, positions, side="right") - 1
        return Targets(users.astype(np.int32), offsets[users], positions)

    def fingerprint(self) -> str | None:
        """8 hex digits over where the training parts end and the targets stand; ``None`` if that follows from the log.

        It does in leave-one-out.
        """
        if self.name.startswith(LEAVE_ONE_OUT):
            return None
        digest = hashlib.blake2b(digest_size=4)
        for positions in (self.train_ends, self.validation, self.test):
            digest.update(np.asarray([len(positions)], "<i8").tobytes())
            digest.update(np.ascontiguousarray(positions, "<i8").data)
        return digest.hexdigest()

    def train_item_counts(self) -> np.ndarray:
        """How often each item is taken in the training part: ``[num_items + 1]`` int64; 0 is padding."""
        log = self.interactions
        counts = np.zeros(log.num_items + 1, np.int64)
        for start in range(0, log.num_interactions, COUNTED_AT_ONCE):
            block = log.items[start : start + COUNTED_AT_ONCE]
            counts += np.bincount(block, minlength=len(counts))
        held_out = _ranges(self.train_ends, log.offsets[1:])
        return counts - np.bincount(log.items[held_out], minlength=len(counts))

    def never_trained(self, part: Part, counts: np.ndarray | None = None) -> int:
        """How many targets of a part are items that never occur in the training part.

        Args:
          part: whose targets.
          counts: ``train_item_counts``, if they are at hand.
        """
        counts = self.train_item_counts() if counts is None else counts
        targets = self.interactions.items[self.targets(part).positions]
        return int(np.count_nonzero(counts[targets] == 0))

    def summary(self) -> dict:
        """Sizes of the parts, and what is worth knowing about them, as plain values."""
        log = self.interactions
        counts = self.train_item_counts()
        tested = np.zeros(log.num_users, bool)
        tested[self.targets("test").users] = True
        tested[self.targets("validation").users] = True
        return {
            "split": self.name,
            "users": log.num_users,
            "users_train_only": int(np.count_nonzero(~tested & (log.lengths > 0))),
            "train_interactions": int(counts.sum()),
            "train_items": int(np.count_nonzero(counts)),
            "validation_targets": len(self.validation),
            "test_targets": len(self.test),
            "test_targets_never_trained": self.never_trained("test", counts),
        }

    def __repr__(self) -> str:
        return (
            f"Split({self.name} of {self.interactions.name}: {len(self.validation):,} validation and "
            f"{len(self.test):,} test targets)"
        )


def leave_one_out(log: Interactions, *, min_events: int = 3) -> Split:
    """Each user's last item is the test target, the one before it the validation target.

    Users with fewer than ``min_events`` interactions (at least 3: one for each part) only train. Raises
    ValueError if no user has that many.
    """
    if min_events < 3:
        raise ValueError(f"min_events is {min_events}; a user needs 3 interactions, one for each part")
    long = log.lengths >= min_events
    if not long.any():
        raise ValueError(
            f"no user of {log.name} has the {min_events} interactions that a leave-one-out split needs (the "
            f"longest of {log.num_users} histories has {log.lengths.max(initial=0)}); give longer histories"
        )
    ends = log.offsets[1:]
    last = ends[long] - 1
    name = LEAVE_ONE_OUT if min_events == 3 else f"{LEAVE_ONE_OUT}(min_events={min_events})"
    return Split(log, name, ends - 2 * long, last - 1, last)


def temporal(
    log: Interactions,
    *,
    validation_time: Moment | None = None,
    test_time: Moment | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    targets: Literal["first", "last", "all"] = "last",
) -> Split:
    """One global clock: what happened before ``validation_time`` trains, from ``test_time`` on tests.

    Targets are interactions of the validation and test spans that have a history (of whatever span)
    before them; a user may be in one part, both or none.

    Args:
      log: a log with times.
      validation_time: in the unit of the times; or a date or ISO text, taken as UTC, for times in
        seconds since 1970. None takes it from ``fractions``.
      test_time: likewise.
      fractions: shares of all interactions that train, validate and test, where times are not given.
      targets: which interactions of a user in a span are targets: the ``"first"``, the ``"last"``, ``"all"``.

    Raises ValueError if the log has no times, or a part would be empty.
    """
    if not log.num_interactions:
        raise ValueError(f"{log.name} has no interactions; there is nothing to split")
    if log.times is None:
        raise ValueError(f"{log.name} has no times; use leave_one_out, or read the log with its time column")
    if targets not in ("first", "last", "all"):
        raise ValueError(f"targets is {targets!r}; choose 'first', 'last' or 'all'")
    validation_time, test_time = _boundaries(log, validation_time, test_time, fractions)
    starts, ends = log.offsets[:-1], log.offsets[1:]
    train_ends = _first_not_before(log, validation_time)
    test_starts = _first_not_before(log, test_time)
    parts = [
        _targets_between(starts, train_ends, test_starts, targets),
        _targets_between(starts, test_starts, ends, targets),
    ]
    name = f"temporal(validation_time={validation_time}, test_time={test_time}, targets={targets})"
    for part, positions in (("training", starts < train_ends), ("validation", parts[0]), ("test", parts[1])):
        if not np.any(positions):
            raise ValueError(
                f"{name} leaves {log.name} no {part} part: its times run from {log.times.min()} to "
                f"{log.times.max()}; choose other times or fractions"
            )
    return Split(log, name, train_ends, *parts)


def _boundaries(
    log: Interactions, validation_time: Moment | None, test_time: Moment | None, fractions: Sequence[float]
) -> tuple[int | float, int | float]:
    """The two times of a temporal split, as numbers."""
    check_fractions(fractions)
    places = [round(share * log.num_interactions) for share in (fractions[0], fractions[0] + fractions[1])]
    places = np.minimum(places, log.num_interactions - 1)
    quantiles = [None, None]
    if validation_time is None or test_time is None:
        quantiles = np.partition(log.times, places)[places].tolist()
    validation_time = quantiles[0] if validation_time is None else as_number(validation_time)
    test_time = quantiles[1] if test_time is None else as_number(test_time)
    if not validation_time < test_time:
        raise ValueError(f"validation_time {validation_time} must come before test_time {test_time}")
    return validation_time, test_time


def _first_not_before(log: Interactions, time: int | float) -> np.ndarray:
    """``[U]`` int64, each user's first position at ``time`` or later: all users are bisected at once."""
    low, high = log.offsets[:-1].copy(), log.offsets[1:].copy()
    while True:
        open_users = np.flatnonzero(low < high)
        if not len(open_users):
            return low
        middle = (low[open_users] + high[open_users]) // 2
        earlier = log.times[middle] < time
        low[open_users[earlier]] = middle[earlier] + 1
        high[open_users[~earlier]] = middle[~earlier]


def _targets_between(starts: np.ndarray, first: np.ndarray, end: np.ndarray, which: str) -> np.ndarray:
    """Positions of the targets in ``[first, end)`` of each user, those without any history left out."""
    first = np.minimum(np.maximum(first, starts + 1), end)
    if which == "all":
        return _ranges(first, end)
    some = first < end
    return first[some] if which == "first" else end[some] - 1


def _ranges(first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """All integers of the ranges ``[first[i], end[i])``, one range after the other, int64."""
    lengths = end - first
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum(), dtype=np.int64) + np.repeat(first - before, lengths)


__all__ = ["Split", "Targets", "leave_one_out", "temporal"]
