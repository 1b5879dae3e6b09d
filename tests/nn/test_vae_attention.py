"""V-GenAtt: the divergence, the map's parts, the latent variable, the global form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.nn.attention import attention_mask
from jaxrec.nn.vae_attention import VaeAttention, active_units, gaussian_kl

HEADS, WIDTH, LENGTH, MAX_LENGTH, LATENT = 2, 8, 5, 7, 3
ITEMS = jnp.array([[0, 4, 2, 7, 1], [3, 1, 4, 1, 5]], jnp.int32)
HIDDEN = jax.random.normal(jax.random.key(0), (2, LENGTH, WIDTH))
MASK = attention_mask(ITEMS, causal=True)


def make(**fields):
    module = VaeAttention(latent_width=LATENT, max_length=MAX_LENGTH, num_heads=HEADS, **fields)
    rngs = {"params": jax.random.key(1), "latent": jax.random.key(2)}
    return module, module.init(rngs, HIDDEN, HIDDEN, MASK, train=False)["params"]


def run(module, params, train=False, seed=0):
    rngs = {"latent": jax.random.key(seed)}
    output, variables = module.apply(
        {"params": params}, HIDDEN, HIDDEN, MASK, train=train, rngs=rngs, mutable=["intermediates"]
    )
    return output, {name: value[0] for name, value in variables["intermediates"].items()}


def test_kl_equals_its_integral():
    mean, log_variance = np.array([0.7, -1.2]), np.array([-0.5, 0.8])
    grid = np.linspace(-15, 15, 300_001)[:, None]
    log_density = -0.5 * (log_variance + np.log(2 * np.pi) + (grid - mean) ** 2 / np.exp(log_variance))
    log_standard = -0.5 * (np.log(2 * np.pi) + grid**2)
    integral = np.sum(np.exp(log_density) * (log_density - log_standard)) * (grid[1, 0] - grid[0, 0])
    np.testing.assert_allclose(gaussian_kl(jnp.array(mean), jnp.array(log_variance)), integral, rtol=1e-4)
    assert gaussian_kl(jnp.zeros(3), jnp.zeros(3)) == 0


def test_free_bits_are_a_floor_without_gradient():
    mean, log_variance = jnp.array([0.1, 2.0]), jnp.zeros(2)
    np.testing.assert_allclose(gaussian_kl(mean, log_variance, 0.5), 0.5 + 2.0, rtol=1e-6)
    gradient = jax.grad(lambda m: gaussian_kl(m, log_variance, 0.5))(mean)
    np.testing.assert_allclose(gradient, [0.0, 2.0])


def test_active_units_counts_means_that_vary():
    mean = np.zeros((2, 4, 3))
    mean[..., 0] = np.linspace(-1, 1, 8).reshape(2, 4)
    mean[..., 1] = 5.0
    mean[0, 0, 2] = 9.0
    real = np.ones((2, 4), bool)
    assert active_units(jnp.asarray(mean), jnp.asarray(real)) == 2
    real[0, 0] = False
    assert active_units(jnp.asarray(mean), jnp.asarray(real)) == 1


def test_penalty_is_the_divergence_of_what_is_sown():
    module, params = make()
    output, sown = run(module, params, train=True)
    expected = gaussian_kl(sown["latent_mean"], sown["latent_log_variance"])
    np.testing.assert_allclose(output.penalties["kl"], np.where(ITEMS != 0, expected, 0.0), rtol=1e-6)


def test_without_generator_only_recency_is_left():
    module, params = make(recency=0.3)
    params |= {"generator": jnp.zeros_like(params["generator"])}
    weights = np.asarray(run(module, params)[0].weights)
    lags = np.arange(4, -1, -1)
    expected = np.exp(-0.3 * lags) / np.exp(-0.3 * lags).sum()
    np.testing.assert_allclose(weights[1, :, -1], np.broadcast_to(expected, (HEADS, 5)), rtol=1e-5)
    np.testing.assert_allclose(
        weights[1, :, 1, :2], np.broadcast_to(expected[3:] / expected[3:].sum(), (2, 2))
    )


def test_mean_at_inference_noise_in_training():
    module, params = make()
    quiet, _ = run(module, params)
    noisy, sown = run(module, params, train=True)
    assert np.abs(np.asarray(quiet.weights) - np.asarray(noisy.weights)).max() > 1e-3
    narrow = {"kernel": params["posterior"]["kernel"].at[:, LATENT:].set(0.0)}
    narrow["bias"] = params["posterior"]["bias"].at[LATENT:].set(-40.0)
    noisy, sown = run(module, params | {"posterior": narrow}, train=True)
    np.testing.assert_allclose(sown["latent_log_variance"], -40.0, rtol=1e-6)
    np.testing.assert_allclose(noisy.weights, quiet.weights, atol=1e-6)


@pytest.mark.slow
def test_samples_on_request_spread_around_the_mean():
    module, params = make(sample_at_inference=True)
    draws = jax.vmap(lambda seed: run(module, params, seed=seed)[0].logits)(jnp.arange(64))
    mean_logits = run(make()[0], params)[0].logits
    spread = np.asarray(draws).std(0)[1, :, -1]
    assert np.all(spread > 1e-3)
    distance = np.abs(np.asarray(draws).mean(0) - np.asarray(mean_logits))[1, :, -1]
    assert np.all(distance < 3 * spread)


def test_global_form_has_one_latent_variable():
    module, params = make(form="global")
    output, sown = run(module, params)
    assert sown["latent_mean"].shape == (2, 1, LATENT)
    penalty = np.asarray(output.penalties["kl"])
    assert np.all(penalty[:, :-1] == 0)
    assert np.all(penalty[:, -1] > 0)
    rows = np.asarray(output.logits)[1, 0]
    assert np.linalg.matrix_rank(rows - rows.mean(0), tol=1e-4) > 1


@pytest.mark.parametrize("form", ["causal", "global"])
def test_content_term_is_added_to_the_logits_of_items(form):
    module, params = make(form=form, content_width=4)
    plain, _ = make(form=form)
    output, sown = run(module, params)
    own = {name: leaf for name, leaf in params.items() if not name.startswith("content")}
    trunk = sown["latent_mean"] @ params["trunk"]["kernel"] + params["trunk"]["bias"]
    if form == "global":
        trunk = trunk + params["places"][-LENGTH:]
    query = np.einsum("brw,whc->brhc", jax.nn.gelu(trunk), params["content_query"]["kernel"])
    query += params["content_query"]["bias"]
    key = np.einsum("bmd,dhc->bmhc", HIDDEN, params["content_key"]["kernel"])
    expected = np.einsum("brhc,bmhc->bhrm", query, key) / 2.0
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(output.logits - run(plain, own)[0].logits, expected, atol=1e-5)


def test_unknown_form_and_negative_width_are_refused():
    with pytest.raises(ValueError, match="form is 'local'"):
        VaeAttention(form="local")
    with pytest.raises(ValueError, match="content_width is -1"):
        VaeAttention(content_width=-1)


@pytest.mark.parametrize("form", ["causal", "global"])
def test_diagnosis_counts_units_and_nats_without_padding(form):
    module, params = make(form=form)
    _, sown = run(module, params)
    real = ITEMS != 0
    figures = VaeAttention.diagnose({name: (value,) for name, value in sown.items()}, jnp.asarray(real))
    nats = np.asarray(gaussian_kl(sown["latent_mean"], sown["latent_log_variance"]))
    real = real[:, -nats.shape[1] :]
    np.testing.assert_allclose(figures["latent_nats"], nats[real].mean(), rtol=1e-5)
    assert figures["active_units"] == active_units(sown["latent_mean"], jnp.asarray(real))
    assert VaeAttention.diagnose({}, jnp.asarray(real)) == {}
