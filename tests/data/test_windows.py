"""Training windows against a slow loop over users; order, coverage, buckets, resuming, sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_log
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from jaxrec.data.on_device import DeviceLog
from jaxrec.data.windows import bucket_lengths, cut_windows, plan_windows


def all_rows(items, plan, number):
    """Every row of a bucket once, in stored order of the shuffled stream."""
    bucket = plan.buckets[number]
    places = np.arange(bucket.num_rows)
    return cut_windows(
        items,
        plan.starts,
        plan.num_targets,
        bucket,
        number,
        np.zeros_like(places),
        places,
        plan.positions,
        plan.seed,
    )


def test_bucket_lengths():
    assert bucket_lengths(50) == [4, 8, 16, 32, 50]
    assert bucket_lengths(4) == [4]
    assert bucket_lengths(3) == [3]
    assert bucket_lengths(50, "last") == [2, 4, 6, 8, 12, 16, 24, 32, 50]
    assert bucket_lengths(8, "last") == [2, 4, 6, 8]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30),
    st.integers(1, 12),
    st.sampled_from(["all", "last"]),
)
def test_every_target_comes_once_from_its_own_history(lengths, max_length, positions):
    lengths = [*lengths, 3]
    items, offsets = make_log(lengths)
    plan = plan_windows(
        offsets[:-1], offsets[1:], max_length=max_length, batch_targets=8, positions=positions, row_multiple=1
    )
    seen = []
    for number in range(len(plan.buckets)):
        inputs, targets, weights = all_rows(items, plan, number)
        assert inputs.shape[1] == plan.buckets[number].length <= max_length
        for row in range(len(inputs)):
            real = inputs[row] > 0
            assert (np.diff(real.astype(int)) >= 0).all(), "right-aligned"
            assert (targets[row][real] == inputs[row][real] + 1).all(), "the target follows its input"
            assert (weights[row][~real] == 0).all()
            seen += targets[row][weights[row] > 0].tolist()
    long = {user for user, n in enumerate(lengths) if n - 1 > max_length}
    wanted = [1000 * user + k + 1 for user, n in enumerate(lengths) for k in range(1, n)]
    if positions == "last":
        assert sorted(seen) == wanted
    else:  # users with several windows have some targets twice and miss others in a given pass
        short = [target for target in seen if target // 1000 not in long]
        assert sorted(short) == [target for target in wanted if target // 1000 not in long]
        for user in long:
            assert 1000 * user + lengths[user] in seen, "the newest target is always there"


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("users", [3, 60, 300])
def test_the_first_epoch_of_few_windows_has_a_call(users, positions):
    """Also where a batch has more rows than there are windows, and where a call has several batches."""
    _, offsets = make_log([2] * users)
    for batch_targets in (8, 4096):
        plan = plan_windows(
            *(offsets[:-1], offsets[1:]),
            max_length=4,
            batch_targets=batch_targets,
            steps=4,
            positions=positions,
        )
        assert plan.first_call(1) >= 1
        assert plan.first_call(7) * plan.steps * plan.buckets[0].rows_per_batch >= 7 * users


def test_windows_of_a_long_user_reach_every_target_over_the_passes():
    items, offsets = make_log([60])
    plan = plan_windows(offsets[:-1], offsets[1:], max_length=10, batch_targets=10, row_multiple=1)
    seen = set()
    for index in range(plan.first_call(60)):
        batch = plan.batch(items, index)
        seen |= set(batch.targets[batch.weights > 0].tolist())
    assert seen == set(range(2, 61))


def test_last_positions_see_the_whole_prefix():
    items, offsets = make_log([7])
    plan = plan_windows(
        offsets[:-1], offsets[1:], max_length=4, batch_targets=6, positions="last", row_multiple=1
    )
    inputs, targets, weights = all_rows(items, plan, 0)
    rows = {int(target[-1]): row.tolist() for row, target in zip(inputs, targets, strict=True)}
    assert rows == {
        2: [0, 0, 0, 1],
        3: [0, 0, 1, 2],
        4: [0, 1, 2, 3],
        5: [1, 2, 3, 4],
        6: [2, 3, 4, 5],
        7: [3, 4, 5, 6],
    }
    assert (weights == [0, 0, 0, 1]).all()


def test_an_epoch_holds_every_window_about_once():
    lengths = np.random.default_rng(0).integers(2, 40, 500)
    items, offsets = make_log(lengths)
    plan = plan_windows(offsets[:-1], offsets[1:], max_length=16, batch_targets=256, steps=2)
    epochs = 20
    targets = sum(plan.batch(items, index).weights.sum() for index in range(plan.first_call(epochs)))
    expected = sum(np.minimum(n, 16) if n <= 16 else -(-n // 16) * 16 for n in lengths - 1)
    assert targets == pytest.approx(epochs * expected, rel=0.02)
    assert plan.first_call(epochs) == pytest.approx(epochs * plan.calls_per_epoch, abs=len(plan.buckets))


def test_epoch_of_a_call():
    _, offsets = make_log(np.random.default_rng(1).integers(2, 40, 300))
    plan = plan_windows(offsets[:-1], offsets[1:], max_length=16, batch_targets=128, steps=2)
    for epoch in range(30):
        for index in range(plan.first_call(epoch), plan.first_call(epoch + 1)):
            assert plan.epoch_of(index) == epoch


def test_batches_are_functions_of_index_and_seed():
    items, offsets = make_log(np.random.default_rng(2).integers(2, 60, 200))

    def make(seed):
        return plan_windows(offsets[:-1], offsets[1:], max_length=16, batch_targets=128, seed=seed)

    first, again, other = make(0), make(0), make(1)
    np.testing.assert_array_equal(first.batch(items, 5).items, again.batch(items, 5).items)
    differs = [
        first.batch(items, index).items.shape != other.batch(items, index).items.shape
        or (first.batch(items, index).items != other.batch(items, index).items).any()
        for index in range(8)
    ]
    assert all(differs)


def test_slices_of_rows_make_the_whole_batch():
    items, offsets = make_log(np.random.default_rng(3).integers(2, 60, 200))
    plan = plan_windows(offsets[:-1], offsets[1:], max_length=16, batch_targets=128, steps=3)
    whole = plan.batch(items, 4)
    rows = whole.items.shape[1]
    parts = [plan.batch(items, 4, slice(start, start + rows // 2)) for start in (0, rows // 2)]
    np.testing.assert_array_equal(whole.items, np.concatenate([part.items for part in parts], axis=1))
    np.testing.assert_array_equal(whole.weights, np.concatenate([part.weights for part in parts], axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["all", "last"])
def test_cutting_on_the_device_gives_the_same_windows(positions):
    items, offsets = make_log(np.random.default_rng(4).integers(0, 60, 100))
    plan = plan_windows(offsets[:-1], offsets[1:], max_length=16, batch_targets=64, positions=positions)
    for number, bucket in enumerate(plan.buckets):
        passes, places = np.divmod(np.arange(2 * bucket.num_rows), bucket.num_rows)
        arguments = (items, plan.starts, plan.num_targets)
        host = cut_windows(*arguments, bucket, number, passes, places, positions, plan.seed)
        small = bucket._replace(first_row=jnp.asarray(bucket.first_row, jnp.int32))
        on_device = [jnp.asarray(part, jnp.int32) for part in arguments]
        device = cut_windows(
            *on_device, small, number, jnp.asarray(passes), jnp.asarray(places), positions, plan.seed, jnp
        )
        for ours, theirs in zip(host, device, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_seeds_share_their_programs_on_the_device():
    """What a call is compiled for does not depend on the seed; what it gives does."""
    items, offsets = make_log([3, 8, 20, 9])
    sharding = NamedSharding(jax.make_mesh((1,), ("data",)), PartitionSpec())
    plans = [plan_windows(offsets[:-1], offsets[1:], max_length=4, batch_targets=16, seed=s) for s in (0, 1)]
    calls = [DeviceLog(items, plan, sharding).call(0) for plan in plans]
    assert jax.tree.structure(calls[0]) == jax.tree.structure(calls[1])
    one, other = (call.batches() for call in calls)
    assert one.items.tolist() != other.items.tolist()
    np.testing.assert_array_equal(other.items, plans[1].batch(items, 0).items)


def test_a_log_beyond_32_bits_is_refused_on_the_device():
    items, offsets = make_log([3, 8])
    plan = plan_windows(offsets[:-1], offsets[1:], max_length=4, batch_targets=16)
    long = np.broadcast_to(items[0], 2**31)
    with pytest.raises(ValueError, match=r"2,147,483,648 interactions.*train\.batch_source to grain"):
        DeviceLog(long, plan, NamedSharding(jax.make_mesh((1,), ("data",)), PartitionSpec()))


def test_small_buckets_join_the_next_one():
    _, offsets = make_log([3] * 3 + [30] * 100)
    plan = plan_windows(offsets[:-1], offsets[1:], max_length=32, batch_targets=256)
    assert [bucket.length for bucket in plan.buckets] == [32]
    assert plan.buckets[0].num_rows == 103


def test_without_buckets_all_windows_have_one_length():
    _, offsets = make_log([3] * 300 + [30] * 100)
    plan = plan_windows(offsets[:-1], offsets[1:], max_length=32, batch_targets=256, length_buckets=False)
    assert [(bucket.length, bucket.num_rows) for bucket in plan.buckets] == [(32, 400)]


def test_nothing_to_learn():
    with pytest.raises(ValueError, match="no next item"):
        plan_windows(np.arange(3), np.arange(3) + 1, max_length=4, batch_targets=8)


@pytest.mark.parametrize("name", ["max_length", "batch_targets", "steps"])
def test_arguments_out_of_range(name):
    arguments = {"max_length": 4, "batch_targets": 8, "steps": 1, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        plan_windows(np.asarray([0]), np.asarray([5]), **arguments)
