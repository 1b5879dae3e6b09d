"""Sorting and numbering against their plain definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrec.data import grouping

integers = st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(integers) | st.lists(st.floats(allow_nan=False)))
def test_stable_order_is_numpys(keys):
    keys = np.array(keys, np.int64 if not keys else None)
    assert grouping.stable_order(keys).tolist() == np.argsort(keys, kind="stable").tolist()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9)), st.integers(1, 4))
def test_first_appearance(codes, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "BLOCK", block)
        renumbered, appeared = grouping.first_appearance(np.array(codes, np.int32), 10)
    expected = list(dict.fromkeys(codes))
    assert appeared.tolist() == expected
    assert renumbered.tolist() == [expected.index(code) for code in codes]


rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)))


@settings(max_examples=100, deadline=None)
@given(rows, st.booleans())
def test_order_and_repeats(events, timed):
    users, times, items = np.array(events, np.int32).reshape(-1, 3).T
    order = grouping.order_by_user_and_time(users, times if timed else None)
    order = range(len(events)) if order is None else order.tolist()
    expected = sorted(range(len(events)), key=lambda row: (users[row], times[row] if timed else 0))
    assert list(order) == expected
    users, times, items = users[expected], times[expected], items[expected]
    keys = list(
        zip(users.tolist(), items.tolist(), times.tolist() if timed else [0] * len(events), strict=True)
    )
    found = grouping.count_repeats(users, items, times if timed else None)
    assert found == len(keys) - len(set(keys))
    pairs = list(zip(users.tolist(), items.tolist(), strict=True))
    for which, sequence in (("first", pairs), ("last", pairs[::-1])):
        kept = np.flatnonzero(grouping.one_of_each_pair(users, items, which)).tolist()
        places = {sequence.index(pair) for pair in pairs}
        assert kept == sorted(places if which == "first" else {len(pairs) - 1 - place for place in places})
