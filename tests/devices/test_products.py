"""Products of bfloat16 operands: against numpy, by gradient, and as each platform takes them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.devices.products import dense, dense_general, multiply, multiply_over, rounds_operands

RNG = np.random.default_rng(0)
INPUTS, KERNEL, GRADIENT = (
    RNG.normal(size=shape).astype(np.float32) for shape in ((6, 5, 8), (8, 4), (6, 5, 4))
)


def rounded(array):
    return np.asarray(jnp.asarray(array).astype(jnp.bfloat16).astype(jnp.float32))


def test_operands_are_rounded_and_nothing_else():
    product = jax.jit(multiply, static_argnums=2)(INPUTS, KERNEL, jnp.bfloat16)
    assert product.dtype == jnp.float32
    np.testing.assert_allclose(product, rounded(INPUTS) @ rounded(KERNEL), rtol=1e-5, atol=1e-5)
    assert np.abs(product - INPUTS @ KERNEL).max() > 1e-3, "float32 operands would show no rounding"


def test_the_gradients_products_are_rounded_alike():
    _, pull = jax.vjp(lambda inputs, kernel: multiply(inputs, kernel, jnp.bfloat16), INPUTS, KERNEL)
    to_inputs, to_kernel = jax.jit(pull)(GRADIENT)
    assert (to_inputs.dtype, to_kernel.dtype) == (jnp.float32, jnp.float32)
    gradient = rounded(GRADIENT).reshape(-1, 4)
    np.testing.assert_allclose(to_inputs.reshape(-1, 8), gradient @ rounded(KERNEL).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_kernel, rounded(INPUTS).reshape(-1, 8).T @ gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("over", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_every_pair_of_axes(over, dtype):
    left, right = (RNG.normal(size=(7, 7)).astype(np.float32) for _ in range(2))
    found = jax.jit(lambda left, right: multiply_over(left, right, over))(
        jnp.asarray(left, dtype), jnp.asarray(right, dtype)
    )
    if dtype == "bfloat16":
        left, right = rounded(left), rounded(right)
    expected = (left if over[0] else left.T) @ (right.T if over[1] else right)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "own"),
    [
        (lambda dtype: dense(4, dtype=dtype), nn.Dense(4)),
        (lambda dtype: dense_general((2, 3), dtype=dtype), nn.DenseGeneral((2, 3))),
        (lambda dtype: dense_general(4, axis=(-2, -1), dtype=dtype), nn.DenseGeneral(4, axis=(-2, -1))),
    ],
    ids=["dense", "heads", "from heads"],
)
def test_layers_are_flaxs_of_rounded_operands(make, own):
    params = own.init(jax.random.key(0), INPUTS)
    np.testing.assert_array_equal(make("float32").apply(params, INPUTS), own.apply(params, INPUTS))
    found = make("bfloat16").apply(params, INPUTS)
    coarse = {"params": {**params["params"], "kernel": rounded(params["params"]["kernel"])}}
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, own.apply(coarse, rounded(INPUTS)), rtol=1e-5, atol=1e-5)


def test_accelerators_compute_in_bfloat16(monkeypatch):
    assert rounds_operands(jnp.bfloat16)
    assert not rounds_operands("float32")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert not rounds_operands("bfloat16")
    assert multiply(jnp.asarray(INPUTS), jnp.asarray(KERNEL), jnp.bfloat16).dtype == jnp.bfloat16
    layer = dense(4, dtype=jnp.bfloat16)
    assert layer.init_with_output(jax.random.key(0), INPUTS)[0].dtype == jnp.bfloat16
