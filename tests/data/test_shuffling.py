"""Permutations as functions of a counter: bijective, well mixed, the same in numpy and jax."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrec.data.shuffling import combine, mix, permute


@given(st.integers(1, 3000), st.integers(0, 2**32 - 1))
def test_permute_is_a_bijection(size, seed):
    image = permute(np.arange(size, dtype=np.uint32), size, seed)
    assert sorted(image.tolist()) == list(range(size))


def test_numpy_and_jax_agree():
    places, seeds = np.arange(1000, dtype=np.uint32), np.arange(1000, dtype=np.uint32) // 100
    ours = permute(places, 1000, seeds)
    np.testing.assert_array_equal(ours, permute(jnp.asarray(places), 1000, jnp.asarray(seeds), jnp))
    np.testing.assert_array_equal(mix(places), mix(jnp.asarray(places), jnp))
    np.testing.assert_array_equal(combine(3, places, 5), combine(3, jnp.asarray(places), 5, xp=jnp))


def test_seeds_give_different_orders():
    places = np.arange(500, dtype=np.uint32)
    assert (permute(places, 500, 1) != permute(places, 500, 2)).mean() > 0.95


def test_images_are_uniform():
    """Over many seeds each place goes everywhere equally often (chi-square, 49 degrees of freedom)."""
    size, seeds = 50, 4000
    places = np.tile(np.arange(size, dtype=np.uint32), seeds)
    image = permute(places, size, np.repeat(np.arange(seeds, dtype=np.uint32), size)).reshape(seeds, size)
    for place in (0, 1, 24, 49):
        counts = np.bincount(image[:, place], minlength=size)
        assert ((counts - seeds / size) ** 2 / (seeds / size)).sum() < 100


def test_neighbours_do_not_stay_neighbours():
    image = permute(np.arange(10_000, dtype=np.uint32), 10_000, 7).astype(np.int64)
    assert (np.abs(np.diff(image)) < 10).mean() < 0.01
    assert abs(np.corrcoef(np.arange(10_000), image)[0, 1]) < 0.05


@pytest.mark.parametrize("size", [0, 2**31])
def test_size_out_of_range(size):
    with pytest.raises(ValueError, match="size from 1"):
        permute(np.zeros(1, np.uint32), size, 0)
