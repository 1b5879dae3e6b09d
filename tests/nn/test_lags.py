"""Profiles, lag tables, keys of places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.nn.attention import DotProduct
from jaxrec.nn.lags import (
    configure,
    keys_to_profiles,
    lag_of,
    place_keys,
    profiles_to_keys,
    recency_initializer,
    require_length,
)
from jaxrec.nn.vae_attention import VaeAttention


@pytest.mark.parametrize(("num_rows", "num_keys"), [(5, 5), (3, 5), (1, 5), (1, 1)])
def test_profiles_are_rows_by_lag(num_rows, num_keys):
    rows = np.random.default_rng(0).normal(size=(2, num_rows, num_keys)).astype(np.float32)
    profiles = np.asarray(keys_to_profiles(jnp.asarray(rows)))
    for i in range(num_rows):
        place = num_keys - num_rows + i
        for lag in range(num_keys):
            expected = rows[:, i, place - lag] if lag <= place else 0.0
            np.testing.assert_array_equal(profiles[:, i, num_keys - 1 - lag], expected)
    causal = np.where(np.asarray(lag_of(num_rows, num_keys)) >= 0, rows, 0.0)
    np.testing.assert_array_equal(profiles_to_keys(jnp.asarray(profiles)), causal)


def test_profile_beyond_the_first_key_is_dropped():
    profiles = jnp.ones((1, 4, 4))
    np.testing.assert_array_equal(profiles_to_keys(profiles)[0], np.tril(np.ones((4, 4))))


def test_lags_are_places_back():
    np.testing.assert_array_equal(lag_of(2, 3), [[1, 0, -1], [2, 1, 0]])


def test_recency_starts_at_the_newest():
    table = recency_initializer(0.5)(jax.random.key(0), (2, 3))
    np.testing.assert_allclose(table, [[-1.0, -0.5, 0.0]] * 2)


def test_place_keys_are_counted_from_the_end():
    long, short = place_keys(jax.random.key(3), 2, 5), place_keys(jax.random.key(3), 2, 3)
    assert long.shape == (2, 5)
    np.testing.assert_array_equal(jax.random.key_data(long[:, 2:]), jax.random.key_data(short))
    assert len(np.unique(jax.random.key_data(long).reshape(10, -1), axis=0)) == 10


def test_a_table_needs_a_length():
    with pytest.raises(ValueError, match="needs max_length"):
        require_length(None, 3, "This")
    with pytest.raises(ValueError, match="made for 2 items, got a sequence of 3"):
        require_length(2, 3, "This")


def test_configure_sets_only_known_fields():
    assert configure(DotProduct(), num_heads=3, max_length=7).num_heads == 3
    assert configure(VaeAttention(), max_length=7).max_length == 7
