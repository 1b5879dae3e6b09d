"""Dropout by the counter hash: its mean, its edges, its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.nn.dropout import Dropout

KEY = jax.random.key(0)


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
