"""Prefix summaries against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.nn.prefix import PrefixSummary, half_life_initializer, linear_recurrence


@pytest.fixture(params=["cpu", "tpu"])
def backend(request, monkeypatch):
    """The recurrence as CPUs run it, and as accelerators do."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


@pytest.mark.usefixtures("backend")
def test_recurrence_equals_a_loop():
    rng = np.random.default_rng(0)
    decay, inputs = np.array([0.0, 0.4, 0.9]), rng.normal(size=(2, 7, 3))
    state, expected = np.zeros((2, 3)), []
    for i in range(7):
        state = decay * state + inputs[:, i]
        expected.append(state)
    states = linear_recurrence(jnp.asarray(decay, jnp.float32), jnp.asarray(inputs, jnp.float32))
    np.testing.assert_allclose(states, np.stack(expected, 1), rtol=2e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("backend")
def test_recurrence_gradient_equals_that_of_a_scan():
    def by_scan(decay, inputs):
        def step(state, value):
            state = decay * state + value
            return state, state

        return jnp.moveaxis(jax.lax.scan(step, jnp.zeros((2, 3)), jnp.moveaxis(inputs, 1, 0))[1], 0, 1)

    keys = jax.random.split(jax.random.key(0), 3)
    decay, inputs = jax.random.uniform(keys[0], (3,)), jax.random.normal(keys[1], (2, 6, 3))
    weights = jax.random.normal(keys[2], (2, 6, 3))
    gradients = [
        jax.grad(lambda d, x, f=f: jnp.sum(weights * jnp.tanh(f(d, x))), argnums=(0, 1))(decay, inputs)
        for f in (linear_recurrence, by_scan)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_half_lives_span_the_range():
    logits = half_life_initializer(1.0, 32.0)(jax.random.key(0), (6,))
    half_lives = np.log(0.5) / np.log(np.asarray(jax.nn.sigmoid(logits)))
    np.testing.assert_allclose(half_lives, [1, 2, 4, 8, 16, 32], rtol=1e-4)


def test_summary_equals_its_formula_and_skips_padding():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(1, 6, 4)).astype(np.float32)
    real = np.array([[False, False, True, True, True, True]])
    module = PrefixSummary(width=3)
    variables = module.init(jax.random.key(0), jnp.asarray(inputs), jnp.asarray(real))
    params = variables["params"] | {"bias": jnp.array([0.1, 0.2, 0.3])}
    own, fading, mean = np.split(np.asarray(params["project"]["kernel"]), 3, axis=1)
    decay = 1 / (1 + np.exp(-np.asarray(params["decay_logit"])))
    summary = module.apply({"params": params}, jnp.asarray(inputs), jnp.asarray(real))
    for i in range(2, 6):
        items = inputs[0, 2 : i + 1]
        powers = decay[None] ** np.arange(len(items) - 1, -1, -1)[:, None]
        expected = items[-1] @ own + items.mean(0) @ mean + np.asarray(params["bias"])
        expected += np.sqrt(1 - decay**2) * np.sum(powers * (items @ fading), axis=0)
        np.testing.assert_allclose(summary[0, i], expected, rtol=1e-4, atol=1e-5)
