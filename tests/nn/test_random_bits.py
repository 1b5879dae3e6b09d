"""The counter hash looks random where it is used: masks and perturbations; and dropout built on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.nn.dropout import Dropout
from jaxrec.nn.random_bits import counters, hash_bits, hash_normal

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


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(rate):
    inputs = jnp.ones((400, 500))
    outputs = np.asarray(Dropout(rate, deterministic=False).apply({}, inputs, rngs={"dropout": KEY}))
    np.testing.assert_allclose((outputs == 0).mean(), rate, atol=0.005)
    np.testing.assert_allclose(outputs[outputs != 0], 1 / (1 - rate), rtol=1e-6)


def test_dropout_edges():
    inputs = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, inputs, deterministic=True), inputs)
    np.testing.assert_array_equal(Dropout(0.0, deterministic=False).apply({}, inputs), inputs)
    np.testing.assert_array_equal(Dropout(1.0, deterministic=False).apply({}, inputs), 0.0)
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        Dropout(1.5, deterministic=False).apply({}, inputs)


def test_dropout_masks_the_gradient_alike():
    def total(inputs):
        return jnp.sum(Dropout(0.5, deterministic=False).apply({}, inputs, rngs={"dropout": KEY}))

    inputs = jnp.ones((8, 8), jnp.bfloat16)
    outputs = Dropout(0.5, deterministic=False).apply({}, inputs, rngs={"dropout": KEY})
    assert outputs.dtype == jnp.bfloat16
    np.testing.assert_array_equal(jax.grad(total)(inputs), outputs)
