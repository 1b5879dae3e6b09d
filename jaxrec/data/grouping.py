"""Sorting, numbering and thinning of flat logs: numpy passes without a Python loop over rows."""

import numpy as np

BLOCK = 1 << 22


def first_appearance(codes: np.ndarray, num_codes: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers codes anew in order of first appearance.

    Args:
      codes: ``[N]`` integers in 0 to ``num_codes - 1``.
      num_codes: the number of possible codes; those that do not appear are left out.

    Returns:
      ``renumbered [N]`` int32, and ``appeared [n]`` int64: the old code of each new one.
    """
    first = np.full(num_codes, len(codes), np.int64)
    for start in reversed(range(0, len(codes), BLOCK)):
        block = codes[start : start + BLOCK]
        first[block[::-1]] = np.arange(start + len(block) - 1, start - 1, -1)  # the last assignment holds
    present = np.flatnonzero(first < len(codes))
    appeared = present[np.argsort(first[present])]
    numbers = np.zeros(num_codes, np.int32)
    numbers[appeared] = np.arange(len(appeared), dtype=np.int32)
    return numbers[codes], appeared


def stable_order(keys: np.ndarray) -> np.ndarray:
    """Like ``np.argsort(keys, kind="stable")`` as ``[N]`` int64, several times faster for integer keys.

    Key and row are packed into one 64-bit integer and sorted in place (vectorised in numpy); keys of
    too wide a range, and floats, take the ordinary way.
    """
    if not len(keys):
        return np.zeros(0, np.int64)
    if keys.dtype.kind == "i":
        lowest = int(keys.min())
        row_bits = max(1, (len(keys) - 1).bit_length())
        if (int(keys.max()) - lowest).bit_length() + row_bits <= 63:
            packed = keys.astype(np.int64)
            packed -= lowest
            packed <<= row_bits
            packed |= np.arange(len(keys), dtype=np.int64)
            packed.sort()
            packed &= (1 << row_bits) - 1
            return packed
    return np.argsort(keys, kind="stable")


def order_by_user_and_time(users: np.ndarray, times: np.ndarray | None) -> np.ndarray | None:
    """Rows in order of user, then time, then place in the file; None if they stand so already.

    Args:
      users: ``[N]`` int32 rows of the users.
      times: ``[N]`` integers or floats, or None where the order of the rows is the order of time.
    """
    grouped = bool(np.all(users[1:] >= users[:-1]))
    if times is None:
        return None if grouped else stable_order(users)
    if grouped and not np.any((times[1:] < times[:-1]) & (users[1:] == users[:-1])):
        return None
    order = stable_order(times)
    return order[stable_order(users[order])]


def offsets_of(users: np.ndarray, num_users: int) -> np.ndarray:
    """``[num_users + 1]`` int64, where each user's run begins when rows are grouped by user."""
    return np.concatenate([[0], np.cumsum(np.bincount(users, minlength=num_users))]).astype(np.int64)


def count_repeats(users: np.ndarray, items: np.ndarray, times: np.ndarray | None) -> int:
    """How many rows repeat another one: same user, item and time, or same user and item without times.

    Args:
      users: ``[N]`` int32, rows grouped by user.
      items: ``[N]`` int32 codes from 0.
      times: ``[N]``, sorted within each user, or None.
    """
    groups = users
    if times is not None:
        tied = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
        member = np.zeros(len(users), bool)
        member[1:] = tied
        member[:-1] |= tied
        groups = np.concatenate([[False], ~tied]).cumsum(dtype=np.int64)[member]
        items = items[member]
    pairs = _pairs(groups, items)
    pairs.sort()
    return int(np.count_nonzero(pairs[1:] == pairs[:-1]))


def one_of_each_pair(users: np.ndarray, items: np.ndarray, which: str) -> np.ndarray:
    """``[N]`` bool that keeps the ``"first"`` or ``"last"`` row of each user with each item."""
    pairs = _pairs(users, items)
    order = stable_order(pairs)
    repeats = pairs[order[1:]] == pairs[order[:-1]]
    kept = np.ones(len(users), bool)
    kept[(order[1:] if which == "first" else order[:-1])[repeats]] = False
    return kept


def _pairs(groups: np.ndarray, items: np.ndarray) -> np.ndarray:
    """One int64 for each (group, item)."""
    return groups.astype(np.int64) * (int(items.max(initial=0)) + 1) + items


def k_core(
    items: np.ndarray, offsets: np.ndarray, min_user: int, min_item: int, num_items: int
) -> np.ndarray | None:
    """Which interactions are left when short users and rare items are dropped until nothing drops.

    Args:
      items: ``[N]`` int32 item ids.
      offsets: ``[U + 1]`` int64.
      min_user: interactions that a user must have.
      min_item: interactions that an item must have.
      num_items: the highest item id.

    Returns:
      ``[N]`` bool, or None if every interaction stays.
    """
    lengths = np.diff(offsets)
    counts = np.bincount(items, minlength=num_items + 1)
    if lengths.min(initial=min_user) >= min_user and counts[counts > 0].min(initial=min_item) >= min_item:
        return None
    left = np.ones(len(items), bool)
    users = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    while True:
        drop = left & ((counts < min_item)[items] | (lengths < min_user)[users])
        if not drop.any():
            return left
        left &= ~drop
        counts = counts - np.bincount(items[drop], minlength=num_items + 1)
        lengths = lengths - np.bincount(users[drop], minlength=len(lengths))


__all__ = [
    "count_repeats",
    "first_appearance",
    "k_core",
    "offsets_of",
    "one_of_each_pair",
    "order_by_user_and_time",
    "stable_order",
]
