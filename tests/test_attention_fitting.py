"""A family of maps reaches what is in it, and comes as close elsewhere as its size allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.attention_fitting import fit_attention, reads_gaussians
from jaxrec.nn.attention import DotProduct, masked_softmax
from jaxrec.nn.attention_analysis import row_divergence
from jaxrec.nn.diffusion_attention import DiffusionAttention
from jaxrec.nn.refinement import Refined
from jaxrec.nn.stochastic import WassersteinScores
from jaxrec.nn.vae_attention import VaeAttention

LENGTH = 12
MASK = np.tril(np.ones((LENGTH, LENGTH), bool))
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def to_map(logits):
    return masked_softmax(jnp.asarray(logits, jnp.float32), MASK)


LOW_RANK = to_map(RNG.normal(size=(LENGTH, 2)) @ RNG.normal(size=(2, LENGTH)))
RANDOM = to_map(2.0 * RNG.normal(size=(LENGTH, LENGTH)))
BY_LAG = to_map(4.0 * RNG.normal(size=2 * LENGTH)[np.subtract.outer(np.arange(LENGTH), np.arange(LENGTH))])


def mean_divergence(provider, target, channels):
    fit = fit_attention(provider, target, channels=channels, key=KEY, num_steps=250)
    return float(fit.divergence.mean())


def test_dot_product_fits_what_has_its_rank_and_no_more():
    maps = jnp.stack([LOW_RANK, RANDOM])
    fit = fit_attention(DotProduct(), maps, channels=2, key=KEY, num_steps=400)
    assert fit.weights.shape == (2, LENGTH, LENGTH)
    np.testing.assert_allclose(fit.divergence, row_divergence(maps, fit.weights))
    np.testing.assert_allclose(fit.weights.sum(-1), 1.0, atol=1e-5)
    assert np.all(np.triu(fit.weights, 1) == 0)
    low_rank, random = fit.divergence.mean(-1)
    assert low_rank < 0.01
    assert random > 0.1
    assert mean_divergence(DotProduct(), RANDOM, 8) < random / 4


def test_a_map_of_lags_is_in_the_generated_families_only():
    assert mean_divergence(DotProduct(), BY_LAG, 1) > 0.1
    assert mean_divergence(VaeAttention(latent_width=1), BY_LAG, 1) < 0.01


@pytest.mark.parametrize(
    "provider",
    [
        DiffusionAttention(),
        Refined(mechanism="simple"),
        Refined(base=WassersteinScores()),
        VaeAttention(latent_width=2, sample_at_inference=True),
    ],
    ids=lambda provider: type(provider).__name__,
)
def test_every_provider_gets_closer(provider):
    start = fit_attention(provider, RANDOM, channels=2, key=KEY, num_steps=1)
    end = fit_attention(provider, RANDOM, channels=2, key=KEY, num_steps=60)
    assert np.all(np.isfinite(end.divergence))
    assert end.divergence.mean() < 0.9 * start.divergence.mean()


def test_which_inputs_a_provider_reads():
    assert reads_gaussians(WassersteinScores())
    assert reads_gaussians(Refined(base=WassersteinScores()))
    assert not reads_gaussians(Refined())
    assert not reads_gaussians(VaeAttention())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.full((3, 3), 1 / 3), "each row of a target must sum to 1"),
        (np.tril(np.ones((3, 3))), "each row of a target must sum to 1"),
        (np.eye(3)[:2], "square maps .* got the shape \\(2, 3\\)"),
    ],
)
def test_only_causal_maps_are_fitted(targets, message):
    with pytest.raises(ValueError, match=message):
        fit_attention(DotProduct(), targets, channels=2, key=KEY)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="channels and num_steps must be at least 1, got 0 and 500"):
        fit_attention(DotProduct(), RANDOM, channels=0, key=KEY)
