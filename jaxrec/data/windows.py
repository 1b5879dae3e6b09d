"""Training windows: which there are, in which order they come, and how one is cut out of the flat log.

Nothing is materialised. A window is a row number of a length bucket; its items are gathered from the
flat log by index. The order is an endless stream of *calls* (``steps`` batches of one bucket), each a pure
function of its number, so that shuffling, resuming and sharding are exact.
"""

import dataclasses
import functools
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxrec.batch import SequenceBatch
from jaxrec.data.shuffling import combine, permute

TargetPositions = Literal["all", "last"]
SHORTEST_BUCKET: dict[TargetPositions, int] = {"all": 4, "last": 2}
ROW_MULTIPLE = 8


class Bucket(NamedTuple):
    """Windows of one padded length.

    Attributes:
      length: L of its batches.
      shortest: windows with this many targets (prefix items, for ``"last"``) or fewer are in shorter buckets.
      first_row: int64 ``[U + 1]``; the rows of user u are ``first_row[u]`` to ``first_row[u + 1]``.
      rows_per_batch: B of its batches.
      num_rows: windows in this bucket, ``first_row[U]``.
    """

    length: int
    shortest: int
    first_row: np.ndarray
    rows_per_batch: int
    num_rows: int


class Call(NamedTuple):
    """The input of one call of the training step: ``steps`` batches of one bucket.

    Attributes:
      bucket: index of the bucket.
      first: position of its first row in the bucket's endless stream of shuffled rows.
    """

    bucket: int
    first: int


def bucket_lengths(max_length: int, positions: TargetPositions = "all") -> list[int]:
    """Powers of two from 4 below ``max_length``, then ``max_length``.

    With ``positions="last"`` every prefix of a history is a window, most of them are short, and padding costs as much
    as items do: from 2, and half-way between two powers as well, unless ``max_length`` is close.
    """
    lengths = []
    length = SHORTEST_BUCKET[positions]
    while length < max_length:
        lengths.append(length)
        half_way = length + length // 2
        if positions == "last" and length > 2 and 8 * half_way < 7 * max_length:
            lengths.append(half_way)
        length *= 2
    return [*lengths, max_length]


@functools.lru_cache(maxsize=4)
def _shuffled(size: int, seed: int) -> np.ndarray:
    """``range(size)`` in random order: that of an epoch's calls, which are asked for one by one."""
    return permute(np.arange(size, dtype=np.uint32), size, seed)


def _window_counts(num_targets: np.ndarray, low: int, high: int, last: bool, positions: str) -> np.ndarray:
    """Windows of each user in the bucket of lengths ``low + 1`` to ``high`` (``last``: the longest bucket)."""
    if positions == "last":
        top = num_targets if last else np.minimum(num_targets, high)
        return np.maximum(top - low, 0)
    if last:
        return np.where(num_targets > low, -(-num_targets // high), 0)
    return ((num_targets > low) & (num_targets <= high)).astype(np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class WindowPlan:
    """The windows of a training set and the order of calls. Build it with ``plan_windows``.

    Attributes:
      starts: int64 ``[U]``, where each user's items begin in the flat log.
      num_targets: int64 ``[U]``, training items of the user less one.
      buckets: shortest first.
      steps: batches of one call.
      positions: ``"all"`` or ``"last"``, as in ``Recommender.target_positions``.
      seed: of the shuffle and of the choice of windows.
    """

    starts: np.ndarray
    num_targets: np.ndarray
    buckets: tuple[Bucket, ...]
    steps: int
    positions: TargetPositions
    seed: int

    @property
    def calls_per_epoch(self) -> float:
        """Calls in which every window comes once, on average (not a whole number)."""
        return sum(bucket.num_rows / (self.steps * bucket.rows_per_batch) for bucket in self.buckets)

    def first_call(self, epoch: int) -> int:
        """Number of the first call of an epoch."""
        return sum(self._calls_before(bucket, epoch) for bucket in self.buckets)

    def _calls_before(self, bucket: Bucket, epoch: int) -> int:
        # Rounded up, so that also the first epoch of a small data set has a call of every bucket.
        return -(-epoch * bucket.num_rows // (self.steps * bucket.rows_per_batch))

    def epoch_of(self, index: int) -> int:
        """The epoch that call ``index`` belongs to."""
        epoch = int(index / self.calls_per_epoch)
        while self.first_call(epoch) > index:
            epoch -= 1
        while self.first_call(epoch + 1) <= index:
            epoch += 1
        return epoch

    def call(self, index: int) -> Call:
        """Which bucket, and which rows of its stream, call ``index`` takes."""
        epoch = self.epoch_of(index)
        befores = [self._calls_before(bucket, epoch) for bucket in self.buckets]
        counts = [
            self._calls_before(bucket, epoch + 1) - before
            for bucket, before in zip(self.buckets, befores, strict=True)
        ]
        seed = combine(self.seed, 1, epoch)
        place = int(_shuffled(sum(counts), int(seed))[index - sum(befores)])
        for number, (bucket, before, count) in enumerate(zip(self.buckets, befores, counts, strict=True)):
            if place < count:
                return Call(number, (before + place) * self.steps * bucket.rows_per_batch)
            place -= count
        raise AssertionError("a call's place lies within its epoch")

    def batch(self, items: np.ndarray, index: int, rows: slice = slice(None)) -> SequenceBatch:
        """Call ``index`` as numpy arrays ``[S, B, L]``; ``rows`` keeps a slice of every batch (one process)."""
        number, first = self.call(index)
        bucket = self.buckets[number]
        stream = first + np.arange(self.steps * bucket.rows_per_batch).reshape(self.steps, -1)[:, rows]
        passes, places = np.divmod(stream.ravel(), bucket.num_rows)
        flat = cut_windows(
            items, self.starts, self.num_targets, bucket, number, passes, places, self.positions, self.seed
        )
        return SequenceBatch(*(part.reshape(*stream.shape, bucket.length) for part in flat))


def cut_windows(
    items: Any,
    starts: Any,
    num_targets: Any,
    bucket: Bucket,
    bucket_number: int,
    passes: Any,
    places: Any,
    positions: TargetPositions,
    seed: Any,
    xp: ModuleType = np,
) -> tuple[Any, Any, Any]:
    """Gathers rows of a bucket's shuffled stream from the flat log.

    Args:
      items: int32 ``[N]``, the flat log.
      starts: ``[U]``, first item of each user.
      num_targets: ``[U]``.
      bucket: whose rows they are (``first_row`` as an array of ``xp``).
      bucket_number: its index, part of the shuffle's seed.
      passes: ``[n]``, how often the stream has been through the bucket.
      places: ``[n]``, the place in that pass.
      positions: ``"all"`` or ``"last"``.
      seed: of the plan.
      xp: ``numpy`` or ``jax.numpy``.

    Returns:
      Inputs int32, targets int32 and weights float32, each ``[n, L]``, right-aligned.
    """
    pass_seed = combine(seed, 2, bucket_number, passes, xp=xp)
    rows = permute(places, bucket.num_rows, pass_seed, xp).astype(bucket.first_row.dtype)
    # On an accelerator, a loop of tiny steps would cost more than the steps.
    unrolled = {} if xp is np else {"method": "scan_unrolled"}
    users = xp.searchsorted(bucket.first_row, rows, side="right", **unrolled) - 1
    number = rows - bucket.first_row[users]
    available = num_targets[users]
    if positions == "last":
        ends = bucket.shortest + 1 + number
    else:
        # The first window of a user is the newest; those further back, of users with more than one,
        # end at a place drawn anew in every pass.
        drawn = combine(pass_seed, 3, rows, xp=xp).astype(rows.dtype) & 0x7FFFFFFF
        free = xp.maximum(available - bucket.length, 0) + 1
        ends = xp.where(number == 0, available, bucket.length + drawn % free)
    pairs = ends[:, None] - bucket.length + xp.arange(bucket.length, dtype=rows.dtype)[None, :]
    real = pairs >= 0
    index = starts[users][:, None] + xp.where(real, pairs, 0)
    inputs = xp.where(real, items[index], 0).astype(xp.int32)
    targets = xp.where(real, items[index + 1], 0).astype(xp.int32)
    if positions == "last":
        real = real & (xp.arange(bucket.length) == bucket.length - 1)[None, :]
    return inputs, targets, real.astype(xp.float32)


def plan_windows(
    starts: np.ndarray,
    ends: np.ndarray,
    *,
    max_length: int,
    batch_targets: int,
    steps: int = 1,
    positions: TargetPositions = "all",
    seed: int = 0,
    length_buckets: bool = True,
    row_multiple: int = ROW_MULTIPLE,
) -> WindowPlan:
    """Plans the windows of a training set.

    Args:
      starts: int64 ``[U]``, where the training part of each user begins in the flat log.
      ends: int64 ``[U]``, where it ends (one past).
      max_length: longest window.
      batch_targets: targets of one step, padding included: a batch has ``batch_targets / L`` rows
        (``batch_targets`` rows where only the last position is trained).
      steps: batches of one call; fewer where the data has not enough for a few calls an epoch.
      positions: which targets of a window are trained.
      seed: of order and choices.
      length_buckets: whether short histories go to short batches (otherwise all are padded to ``max_length``).
      row_multiple: rows of a batch are a multiple of it (devices, processes).

    Raises:
      ValueError: no user has two training items, or an argument is out of range.
    """
    for name, value in (("max_length", max_length), ("batch_targets", batch_targets), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    num_targets = np.maximum(np.asarray(ends) - np.asarray(starts) - 1, 0)
    if not num_targets.any():
        raise ValueError(
            f"none of the {len(num_targets)} users has two items in the training part, so there is no next item to"
            " learn; give longer histories or lower the filter"
        )
    lengths = bucket_lengths(max_length, positions) if length_buckets else [max_length]
    buckets: list[Bucket] = []
    low = 0
    for place, length in enumerate(lengths):
        last = place == len(lengths) - 1
        counts = _window_counts(num_targets, low, length, last, positions)
        wanted = batch_targets if positions == "last" else batch_targets // length
        rows = max(wanted // row_multiple, 1) * row_multiple
        if not last and counts.sum() < rows:
            continue  # too few for a batch of their own: the next longer bucket takes them
        if last and counts.sum() < rows:
            rows = max(-(-int(counts.sum()) // row_multiple), 1) * row_multiple
        if counts.any():
            first_row = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            buckets.append(Bucket(length, low, first_row, rows, int(first_row[-1])))
        low = length
    batches = sum(bucket.num_rows / bucket.rows_per_batch for bucket in buckets)
    steps = min(steps, max(1, int(batches / 4)))
    return WindowPlan(np.asarray(starts, np.int64), num_targets, tuple(buckets), steps, positions, seed)


__all__ = ["Bucket", "Call", "WindowPlan", "bucket_lengths", "cut_windows", "plan_windows"]
