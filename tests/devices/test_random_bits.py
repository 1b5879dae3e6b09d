"""The counter hash looks random where it is used, and draws for a row follow the row and not its device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.devices.random_bits import (
    counters,
    hash_bits,
    hash_normal,
    row_bernoulli,
    row_counters,
    row_integers,
    row_normal,
    row_uniform,
)
from jaxrec.devices.rows import gather_rows, row_part, rows_in_turn, rows_split_over

KEY = jax.random.key(0)


def test_counters_are_row_major():
    np.testing.assert_array_equal(counters((2, 3, 4)), np.arange(24).reshape(2, 3, 4))
    assert counters((2, 3)).dtype == jnp.uint32


def test_every_bit_is_fair_and_independent_of_the_others():
    bits = np.asarray(hash_bits(KEY, counters((1 << 16,))))
    columns = ((bits[:, None] >> np.arange(32, dtype=np.uint32)) & 1).astype(np.float64)
    np.testing.assert_allclose(columns.mean(0), 0.5, atol=0.01)
    correlation = np.corrcoef(columns.T) - np.eye(32)
    assert np.abs(correlation).max() < 0.02


@pytest.mark.parametrize("lag", [1, 2, 128, 512])
def test_neighbours_and_keys_are_uncorrelated(lag):
    keys = jax.random.split(KEY, 8)
    normal = np.asarray(hash_normal(keys, counters((1 << 14,))))
    for row in normal:
        assert abs(np.corrcoef(row[:-lag], row[lag:])[0, 1]) < 0.035
    assert np.abs(np.corrcoef(normal) - np.eye(8)).max() < 0.035


def test_normal_moments_and_tails():
    normal = np.asarray(hash_normal(KEY, counters((1 << 19,))), np.float64)
    assert np.all(np.isfinite(normal))
    np.testing.assert_allclose([normal.mean(), normal.var()], [0, 1], atol=0.01)
    np.testing.assert_allclose([(normal**3).mean(), (normal**4).mean()], [0, 3], atol=0.06)
    np.testing.assert_allclose((np.abs(normal) > 3).mean(), 0.0027, atol=4e-4)


def test_a_value_depends_on_its_key_and_counter_alone():
    keys = jax.random.split(KEY, (2, 3))
    whole = hash_bits(keys, counters((5, 4)))
    assert whole.shape == (2, 3, 5, 4)
    np.testing.assert_array_equal(whole[1, 2], hash_bits(keys[1, 2], counters((5, 4))))
    np.testing.assert_array_equal(whole[0, 0, 2:], hash_bits(keys[0, 0], counters((5, 4))[2:]))


def over_parts(function, sizes: tuple[int, ...]):
    """The function's result on every part of the rows, ``[parts, ...]``, over mapped axes of some sizes."""
    names = ("data", "model")[: len(sizes)]

    def part(_):
        with rows_split_over(names):
            return function()

    for name in reversed(names):
        part = jax.vmap(part, axis_name=name)
    parts = part(jnp.zeros(sizes))
    return np.asarray(parts).reshape(-1, *parts.shape[len(sizes) :])


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("as_array", [True, False])
def test_rows_in_turn_have_their_own_counters(number, as_array):
    with rows_in_turn(jnp.int32(number) if as_array else number, 3):
        part = row_counters((2, 5))
    np.testing.assert_array_equal(part, counters((6, 5))[2 * number : 2 * number + 2])


DRAWS = {
    "counters": row_counters,
    "normal": lambda shape: row_normal(KEY, shape),
    "uniform": lambda shape: row_uniform(KEY, shape),
    "bernoulli": lambda shape: row_bernoulli(KEY, 0.3, shape),
    "integers": lambda shape: row_integers(KEY, shape, 5, 900),
}


@pytest.mark.parametrize("sizes", [(4,), (1,), (2, 2), (4, 1), (1, 4)], ids=str)
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_parts_draw_what_the_whole_batch_draws(draw, sizes):
    rows = 12 // int(np.prod(sizes))
    parts = over_parts(lambda: draw((rows, 3, 5)), sizes)
    np.testing.assert_array_equal(parts.reshape(12, 3, 5), draw((12, 3, 5)))


def test_tokens_of_rows_may_stand_in_one_axis():
    parts = over_parts(lambda: row_counters((3 * 5, 2)), (4,))
    np.testing.assert_array_equal(parts.reshape(12, 5, 2), counters((12, 5, 2)))


def test_a_part_of_more_than_32_bits_is_counted_modulo_2_to_the_32():
    """As in the whole: no overflow error where a part has more values than there are counters."""
    shape = (1 << 17, 1 << 16)
    part = jax.eval_shape(jax.vmap(lambda _: in_parts(row_counters, shape), axis_name="data"), jnp.zeros(3))
    assert part.shape == (3, *shape)
    assert part.dtype == jnp.uint32


def in_parts(function, *arguments):
    with rows_split_over("data"):
        return function(*arguments)


def test_a_lone_device_adds_nothing():
    """The compiled program is the plain one: without axes, with axes of size 1, and after the block."""

    def program(function):
        return str(jax.make_jaxpr(jax.vmap(lambda _: function(), axis_name="data"))(jnp.zeros(1)))

    plain = program(lambda: counters((4, 3)))
    assert program(lambda: row_counters((4, 3))) == plain
    assert program(lambda: in_parts(row_counters, (4, 3))) == plain


def test_an_inner_block_replaces_the_outer_one_and_ends():
    def parts(_):
        with rows_split_over("data"):
            outer = row_part()
            with rows_split_over(None):
                inner = row_part()
            return outer, inner, row_part()

    outer, inner, again = jax.vmap(parts, axis_name="data", out_axes=(0, None, 0))(jnp.zeros(3))
    assert inner == 0
    np.testing.assert_array_equal(outer, [0, 1, 2])
    np.testing.assert_array_equal(again, [0, 1, 2])
    assert row_part() == 0


@pytest.mark.parametrize("sizes", [(4,), (2, 2), (1,)], ids=str)
def test_gathered_rows_are_the_whole_batch_on_every_device(sizes):
    count = 12 // int(np.prod(sizes))
    whole = np.arange(24).reshape(12, 2)
    seen = over_parts(lambda: gather_rows(jnp.asarray(whole)[row_part() * count + jnp.arange(count)]), sizes)
    for rows in seen:
        np.testing.assert_array_equal(rows, whole)


def test_small_integers_are_uniform():
    drawn = np.asarray(row_integers(KEY, (70_000,), 3, 10))
    counts = np.bincount(drawn, minlength=10)
    assert counts[:3].sum() == 0
    np.testing.assert_allclose(counts[3:], 10_000, atol=400)


def test_uniform_moments_and_range():
    uniform = np.asarray(row_uniform(KEY, (1 << 18,)), np.float64)
    assert uniform.min() >= 0.0
    assert uniform.max() < 1.0
    np.testing.assert_allclose([uniform.mean(), uniform.var()], [0.5, 1 / 12], atol=2e-3)
    np.testing.assert_allclose(np.asarray(row_bernoulli(KEY, 0.25, (1 << 18,))).mean(), 0.25, atol=3e-3)
    assert not np.any(row_bernoulli(KEY, 0.0, (1000,)))
    assert np.all(row_bernoulli(KEY, 1.0, (1000,)))
