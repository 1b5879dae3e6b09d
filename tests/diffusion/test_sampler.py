"""The reverse process against a plain loop, and its identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.diffusion import (
    CosineSchedule,
    GaussianProcess,
    LinearSchedule,
    Sampler,
    TruncatedLinearSchedule,
    draw_normal,
    fold_key,
    split_key,
)

KEY = jax.random.key(5)
PROCESS = GaussianProcess(TruncatedLinearSchedule(32))
SAMPLERS = [
    Sampler(PROCESS),
    Sampler(PROCESS, variance="posterior"),
    Sampler(PROCESS, num_steps=7),
    Sampler(PROCESS, num_steps=1),
    Sampler(PROCESS, "ddim"),
    Sampler(PROCESS, "ddim", num_steps=5, eta=0.5),
    Sampler(PROCESS, "ddim", num_steps=1),
    Sampler(GaussianProcess(LinearSchedule(1))),
]


def blur(x_t, t):
    """A denoiser that depends on everything it is given."""
    return jnp.tanh(0.3 * x_t + 0.01 * t)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 5)])
def test_a_perfect_denoiser_lands_on_x0(sampler, shape):
    x0 = jax.random.normal(jax.random.key(9), shape)
    np.testing.assert_array_equal(sampler.sample(lambda x_t, t: x0, KEY, shape), x0)


def test_ddpm_against_a_plain_numpy_loop():
    """Posterior mean c1 x̂_0 + c2 x_t, variance β_t, no noise at t = 0 (DiffuRec)."""
    betas = np.linspace(0.1 / 32 + 0.01, 20.0 / 32 + 0.01, 32)
    alpha_bars = np.cumprod(1 - betas)
    start_key, noise_key = split_key(KEY)
    x = np.asarray(draw_normal(start_key, (2, 3)), np.float64)
    for t in reversed(range(32)):
        x0_hat = np.tanh(0.3 * x + 0.01 * t)
        before = alpha_bars[t - 1] if t else 1.0
        c1 = betas[t] * np.sqrt(before) / (1 - alpha_bars[t])
        c2 = (1 - before) * np.sqrt(1 - betas[t]) / (1 - alpha_bars[t])
        noise = np.asarray(draw_normal(fold_key(noise_key, t), (2, 3)))
        x = c1 * x0_hat + c2 * x + (np.sqrt(betas[t]) * noise if t else 0.0)
    sampled = Sampler(PROCESS).sample(blur, KEY, (2, 3))
    np.testing.assert_allclose(sampled, x0_hat, atol=2e-5)
    np.testing.assert_allclose(sampled, x, atol=2e-5)


def test_ddim_against_a_plain_numpy_loop():
    """x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s) ε̂ on every fourth or so step (Song et al. 2021, eq. 12, eta 0)."""
    sampler = Sampler(PROCESS, "ddim", num_steps=8)
    alpha_bars = PROCESS.schedule.exact_alpha_bars()
    x = np.asarray(draw_normal(split_key(KEY)[0], (2, 3)), np.float64)
    steps = [int(t) for t in sampler.timesteps()]
    for t, s in zip(steps, [*steps[1:], None], strict=True):
        x0_hat = np.tanh(0.3 * x + 0.01 * t)
        noise = (x - np.sqrt(alpha_bars[t]) * x0_hat) / np.sqrt(1 - alpha_bars[t])
        after = 1.0 if s is None else alpha_bars[s]
        x = np.sqrt(after) * x0_hat + np.sqrt(1 - after) * noise
    np.testing.assert_allclose(sampler.sample(blur, KEY, (2, 3)), x, atol=2e-5)


@pytest.mark.parametrize("num_steps", [2, 4, 9, 32])
@pytest.mark.parametrize(
    ("kind", "variance"), [("ddpm", "auto"), ("ddpm", "posterior"), ("ddpm", "beta"), ("ddim", "auto")]
)
def test_noise_on_the_way_is_that_of_the_forward_process(kind, variance, num_steps):
    """Around a known x_0, x_t has mean √ᾱ_t x_0 and deviation √(1 − ᾱ_t), but with β, which adds more."""
    trajectory = Sampler(PROCESS, kind, num_steps, variance=variance).trajectory(
        lambda x_t, t: jnp.full_like(x_t, 2.0), KEY, (50_000,)
    )
    alpha_bars = PROCESS.schedule.exact_alpha_bars()[np.asarray(trajectory.timesteps)]
    means, deviations = trajectory.x_t.mean(axis=1), trajectory.x_t.std(axis=1)
    np.testing.assert_allclose(means, 2.0 * np.sqrt(alpha_bars), atol=0.02)
    if variance == "beta" or (kind == "ddpm" and variance == "auto" and num_steps == 32):
        assert deviations[-1] > 1.5 * np.sqrt(1 - alpha_bars[-1])
    else:
        np.testing.assert_allclose(deviations, np.sqrt(1 - alpha_bars), rtol=0.02)


def test_by_default_the_variance_is_beta_where_every_step_is_taken():
    for num_steps, variance in ((32, "beta"), (31, "posterior"), (1, "posterior")):
        ours = Sampler(PROCESS, num_steps=num_steps).coefficients()
        named = Sampler(PROCESS, num_steps=num_steps, variance=variance).coefficients()
        np.testing.assert_array_equal(ours.spread, named.spread)


def test_ddim_with_eta_one_is_ddpm_with_the_posterior_variance():
    for num_steps in (32, 6):
        ddim = Sampler(PROCESS, "ddim", num_steps, eta=1.0).coefficients()
        ddpm = Sampler(PROCESS, "ddpm", num_steps, variance="posterior").coefficients()
        for ours, theirs in zip(ddim, ddpm, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-7)


def test_timesteps():
    for num_steps in range(1, 33):
        steps = Sampler(PROCESS, num_steps=num_steps).timesteps()
        assert steps[0] == 31
        assert len(np.unique(steps)) == len(steps) == num_steps
        assert np.all(np.diff(steps) < 0)
        assert num_steps == 1 or steps[-1] == 0
    np.testing.assert_array_equal(Sampler(PROCESS).timesteps(), np.arange(31, -1, -1))


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_all_steps_named_or_not_are_the_same(kind):
    full, named = Sampler(PROCESS, kind), Sampler(PROCESS, kind, num_steps=32)
    np.testing.assert_array_equal(full.sample(blur, KEY, (2, 3)), named.sample(blur, KEY, (2, 3)))


@pytest.mark.parametrize("sampler", [Sampler(PROCESS, num_steps=4), Sampler(PROCESS, "ddim", 4)])
def test_a_row_depends_on_its_own_key_alone(sampler):
    keys = jax.random.split(KEY, 5)
    together = sampler.sample(blur, keys, (5, 3))
    np.testing.assert_allclose(sampler.sample(blur, keys[3], (3,)), together[3], rtol=1e-6)
    np.testing.assert_allclose(sampler.sample(blur, keys[1:3], (2, 3)), together[1:3], rtol=1e-6)
    assert len(np.unique(np.asarray(together))) == together.size


def test_only_a_noisy_sampler_draws_between_start_and_end():
    """From the same start, DDIM with eta 0 never uses its noise key; DDPM does."""
    start_key, _ = split_key(KEY)
    start = draw_normal(start_key, (4, 3))
    trajectory = Sampler(PROCESS, "ddim", 3).trajectory(lambda x_t, t: 0.0 * x_t, KEY, (4, 3))
    np.testing.assert_array_equal(trajectory.x_t[0], start)
    ratio = trajectory.x_t[1] / start
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1, :1], ratio.shape), rtol=1e-4)
    noisy = Sampler(PROCESS, "ddpm", 3).trajectory(lambda x_t, t: 0.0 * x_t, KEY, (4, 3))
    assert np.std(noisy.x_t[1] / start) > 0.1


def test_self_conditioning_hands_over_the_previous_estimate():
    def count(x_t, t, previous):
        return previous + 1.0

    sampler = Sampler(PROCESS, num_steps=6)
    np.testing.assert_array_equal(sampler.sample(count, KEY, (2, 3), self_conditioning=True), 6.0)
    trajectory = sampler.trajectory(count, KEY, (2, 3), self_conditioning=True)
    np.testing.assert_array_equal(trajectory.x0_hat[:, 0, 0], [1, 2, 3, 4, 5, 6])


def test_trajectory_ends_in_the_sample():
    sampler = Sampler(PROCESS, num_steps=6)
    trajectory = sampler.trajectory(blur, KEY, (2, 3))
    assert trajectory.x_t.shape == trajectory.x0_hat.shape == (6, 2, 3)
    np.testing.assert_allclose(trajectory.x0_hat[-1], sampler.sample(blur, KEY, (2, 3)), rtol=1e-6)
    for step, t in enumerate(trajectory.timesteps):
        np.testing.assert_allclose(trajectory.x0_hat[step], blur(trajectory.x_t[step], t), rtol=1e-5)


def test_the_known_posterior_is_recovered():
    """x_0 ~ N(2, 0.25): with the exact E[x_0 | x_t], many DDIM samples have that mean and spread."""
    mean, variance = 2.0, 0.25
    process = GaussianProcess(CosineSchedule(200))
    alpha_bars = jnp.asarray(process.schedule.alpha_bars())

    def exact(x_t, t):
        signal = jnp.sqrt(alpha_bars[t])
        gain = signal * variance / (signal**2 * variance + 1 - alpha_bars[t])
        return mean + gain * (x_t - signal * mean)

    for sampler in (Sampler(process, "ddim"), Sampler(process, "ddpm", variance="posterior")):
        samples = sampler.sample(exact, KEY, (20_000,))
        np.testing.assert_allclose(samples.mean(), mean, atol=0.02)
        np.testing.assert_allclose(samples.var(), variance, rtol=0.06)


def test_errors():
    with pytest.raises(ValueError, match="kind is 'euler'"):
        Sampler(PROCESS, "euler")
    with pytest.raises(ValueError, match="between 1 and the 32"):
        Sampler(PROCESS, num_steps=33)
    with pytest.raises(ValueError, match="between 1 and the 32"):
        Sampler(PROCESS, num_steps=0)
    with pytest.raises(ValueError, match="eta"):
        Sampler(PROCESS, "ddim", eta=2.0)
    with pytest.raises(ValueError, match="variance"):
        Sampler(PROCESS, variance="learned")


def test_what_the_other_kind_alone_uses_is_refused():
    with pytest.raises(ValueError, match="eta is 0.5, but acts with ddim alone"):
        Sampler(PROCESS, "ddpm", eta=0.5)
    with pytest.raises(ValueError, match="variance is 'beta', but acts with ddpm alone"):
        Sampler(PROCESS, "ddim", variance="beta")
