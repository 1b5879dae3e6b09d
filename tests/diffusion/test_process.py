"""Identities of the Gaussian process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.diffusion import (
    CosineSchedule,
    GaussianProcess,
    LinearSchedule,
    TruncatedLinearSchedule,
    reverse_step,
)

PROCESS = GaussianProcess(TruncatedLinearSchedule(32))
KEY = jax.random.key(1)


def test_moments_of_the_corrupted():
    """q(x_t | x_0) = N(√ᾱ_t x_0, (1 − ᾱ_t) I)."""
    x0 = jnp.array([2.0, -1.0, 0.5])
    for t in (0, 8, 31):
        noise = jax.random.normal(jax.random.fold_in(KEY, t), (100_000, 3))
        x_t = PROCESS.corrupt(jnp.broadcast_to(x0, noise.shape), t, noise)
        alpha_bar = PROCESS.schedule.alpha_bars()[t]
        np.testing.assert_allclose(x_t.mean(0), np.sqrt(alpha_bar) * x0, atol=0.015)
        np.testing.assert_allclose(np.cov(x_t.T), (1 - alpha_bar) * np.eye(3), atol=0.02)


def test_corruption_equals_the_chain_of_single_steps():
    """√(1−β_1) and β_1 applied to q(x_0) give q(x_1): means and variances compose."""
    betas, one, zero = PROCESS.schedule.exact_betas(), jnp.ones(1), jnp.zeros(1)
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(betas):
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        np.testing.assert_allclose(PROCESS.corrupt(one, t, zero), mean, rtol=1e-6)
        np.testing.assert_allclose(PROCESS.corrupt(zero, t, one), np.sqrt(variance), rtol=1e-6)


def test_steps_broadcast_over_any_shape():
    x0 = jax.random.normal(KEY, (2, 3, 4, 5))
    noise = jax.random.normal(jax.random.key(2), x0.shape)
    steps = jnp.array([[0, 5, 31], [7, 7, 1]])
    x_t = PROCESS.corrupt(x0, steps, noise)
    np.testing.assert_allclose(x_t[1, 0], PROCESS.corrupt(x0[1, 0], 7, noise[1, 0]), rtol=1e-6)
    np.testing.assert_allclose(x_t[0, 2], PROCESS.corrupt(x0[0, 2], 31, noise[0, 2]), rtol=1e-6)


@pytest.mark.parametrize("kind", ["x0", "noise", "velocity"])
@pytest.mark.parametrize("t", [0, 4, 12])
def test_conversions_are_inverse(kind, t):
    x0 = jax.random.normal(KEY, (6, 5))
    noise = jax.random.normal(jax.random.key(3), x0.shape)
    x_t = PROCESS.corrupt(x0, t, noise)
    prediction = {
        "x0": x0,
        "noise": PROCESS.noise_from_x0(x0, x_t, t),
        "velocity": PROCESS.velocity_from_x0(x0, x_t, t),
    }[kind]
    np.testing.assert_allclose(PROCESS.to_x0(prediction, x_t, t, kind), x0, atol=2e-5)
    np.testing.assert_allclose(PROCESS.noise_from_x0(x0, x_t, t), noise, atol=2e-5)


def test_velocity_by_definition():
    """v = √ᾱ ε − √(1 − ᾱ) x_0 (Salimans and Ho 2022)."""
    x0, noise, t = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0]), 6
    alpha_bar = PROCESS.schedule.alpha_bars()[t]
    velocity = PROCESS.velocity_from_x0(x0, PROCESS.corrupt(x0, t, noise), t)
    np.testing.assert_allclose(velocity, np.sqrt(alpha_bar) * noise - np.sqrt(1 - alpha_bar) * x0, rtol=1e-5)


@pytest.mark.parametrize("schedule", [TruncatedLinearSchedule(32), CosineSchedule(7), LinearSchedule(1)])
def test_posterior_at_the_first_step_is_x0(schedule):
    x0, x_t = jnp.array([1.0, 2.0]), jnp.array([-7.0, 9.0])
    mean, variance = GaussianProcess(schedule).posterior(x0, x_t, 0)
    np.testing.assert_array_equal(mean, x0)
    assert variance == 0.0


@pytest.mark.parametrize(("t", "previous"), [(1, 0), (9, 8), (31, 30), (31, 15), (20, 3)])
def test_posterior_by_bayes(t, previous):
    """Precision-weighted product of q(x_s | x_0) and q(x_t | x_s), for one number."""
    alpha_bars = PROCESS.schedule.exact_alpha_bars()
    alpha = alpha_bars[t] / alpha_bars[previous]
    prior_variance, likelihood_precision = 1 - alpha_bars[previous], alpha / (1 - alpha)
    variance = 1 / (1 / prior_variance + likelihood_precision)
    x0, x_t = 0.7, -1.3
    mean = variance * (
        np.sqrt(alpha_bars[previous]) * x0 / prior_variance + likelihood_precision * x_t / np.sqrt(alpha)
    )
    ours, our_variance = PROCESS.posterior(jnp.float32(x0), jnp.float32(x_t), t, previous)
    np.testing.assert_allclose(ours, mean, rtol=1e-5)
    np.testing.assert_allclose(our_variance, variance, rtol=1e-9)


def test_training_steps():
    uniform = np.asarray(PROCESS.draw_steps(KEY, (64_000,)))
    counts = np.bincount(uniform, minlength=32)
    assert counts.shape == (32,)
    np.testing.assert_allclose(counts, 2000, atol=250)
    noisy = np.asarray(PROCESS.draw_steps(KEY, (64_000,), noise_power=1.0))
    counts = np.bincount(noisy, minlength=32)
    np.testing.assert_allclose(counts, 64_000 * (2 * np.arange(32) + 1) / 32**2, atol=250)


def test_errors():
    with pytest.raises(ValueError, match="no reverse step from 3 to 3"):
        reverse_step(PROCESS.schedule, 3, 3)
    with pytest.raises(ValueError, match="no reverse step from 32"):
        PROCESS.posterior(jnp.zeros(1), jnp.zeros(1), 32)
    with pytest.raises(ValueError, match="'score'"):
        PROCESS.to_x0(jnp.zeros(1), jnp.zeros(1), 0, "score")
