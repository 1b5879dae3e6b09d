"""Moments of the three kinds of noise, and draws that follow their row's key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.diffusion import Noise, draw_normal, fold_key, split_key

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("offset", "off_diagonal", "variance"),
    [("none", 0.0, 1.0), ("independent", 0.0, 1.25), ("shared", 0.25, 1.25)],
)
def test_covariance(offset, off_diagonal, variance):
    """With ρ = 0.5: I, (1 + ρ²) I, and I + ρ² 1 1ᵀ."""
    samples = np.asarray(Noise(offset, 0.5).draw(KEY, (200_000, 3)))
    expected = np.full((3, 3), off_diagonal) + (variance - off_diagonal) * np.eye(3)
    np.testing.assert_allclose(np.cov(samples.T), expected, atol=0.015)
    np.testing.assert_allclose(samples.mean(0), 0.0, atol=0.01)


def test_shared_offset_is_one_number_a_row():
    plain_key, _ = split_key(KEY)
    offset = Noise("shared", 2.0).draw(KEY, (4, 5, 6)) - draw_normal(plain_key, (4, 5, 6))
    np.testing.assert_allclose(offset, np.broadcast_to(offset[..., :1], offset.shape), atol=1e-6)
    assert np.std(offset[..., 0]) > 0.5


@pytest.mark.parametrize("offset", ["none", "independent", "shared"])
def test_rows_draw_from_their_own_keys(offset):
    keys = jax.random.split(KEY, 4)
    together = Noise(offset).draw(keys, (4, 7))
    np.testing.assert_array_equal(together[2], Noise(offset).draw(keys[2], (7,)))
    np.testing.assert_array_equal(together[1:], Noise(offset).draw(keys[1:], (3, 7)))
    assert len(np.unique(np.asarray(together))) == together.size


def test_keys_of_two_axes():
    keys = jax.random.split(KEY, (2, 3))
    draws = draw_normal(fold_key(keys, 5), (2, 3, 4))
    alone = draw_normal(jax.random.fold_in(keys[1, 2], 5), (4,))
    np.testing.assert_array_equal(draws[1, 2], alone)


def test_split_keys_differ():
    first, second = split_key(jax.random.split(KEY, 3))
    assert first.shape == second.shape == (3,)
    data = np.concatenate([jax.random.key_data(first), jax.random.key_data(second)])
    assert len(np.unique(data, axis=0)) == 6


def test_errors():
    with pytest.raises(ValueError, match="leading axes"):
        draw_normal(jax.random.split(KEY, 3), (4, 2))
    with pytest.raises(ValueError, match="offset is 'common'"):
        Noise("common")
    with pytest.raises(ValueError, match="not negative"):
        Noise("shared", -1.0)


def test_same_under_jit():
    noise = Noise("shared")
    np.testing.assert_allclose(
        jax.jit(noise.draw, static_argnums=1)(KEY, (3, 4)), noise.draw(KEY, (3, 4)), rtol=1e-6
    )
    assert noise.draw(KEY, (3, 4)).dtype == jnp.float32
