"""The Grain pipeline: equal to the plan, resumable to the call, shared by processes."""

import numpy as np
import pytest
from helpers import make_log

from jaxrec.data.pipeline import CallIterator, CallSource
from jaxrec.data.windows import plan_windows


@pytest.fixture(scope="module")
def log():
    return make_log(np.random.default_rng(0).integers(2, 60, 300))


@pytest.fixture(scope="module")
def plan(log):
    return plan_windows(log[1][:-1], log[1][1:], max_length=16, batch_targets=128, steps=2)


def test_elements_are_the_calls_of_the_plan(log, plan):
    with CallIterator(CallSource(log[0], plan)) as calls:
        for index in range(6):
            assert calls.next_call == index
            batch = next(calls)
            np.testing.assert_array_equal(batch.items, plan.batch(log[0], index).items)
            np.testing.assert_array_equal(batch.targets, plan.batch(log[0], index).targets)


def test_state_resumes_at_the_next_call(log, plan):
    with CallIterator(CallSource(log[0], plan)) as calls:
        for _ in range(3):
            next(calls)
        state = calls.grain_iterator.get_state()
        expected = [next(calls).items for _ in range(3)]
    with CallIterator(CallSource(log[0], plan)) as calls:
        calls.grain_iterator.set_state(state)
        for items in expected:
            np.testing.assert_array_equal(next(calls).items, items)


def test_seek(log, plan):
    with CallIterator(CallSource(log[0], plan), first_call=1000) as calls:
        np.testing.assert_array_equal(next(calls).items, plan.batch(log[0], 1000).items)


def test_processes_share_every_batch(log, plan):
    sources = [CallSource(log[0], plan, process, 2) for process in range(2)]
    together = np.concatenate([source[7].items for source in sources], axis=1)
    np.testing.assert_array_equal(together, plan.batch(log[0], 7).items)


def test_processes_must_divide_the_batch(log, plan):
    with pytest.raises(ValueError, match="3 processes cannot share"):
        CallSource(log[0], plan, 0, 3)
