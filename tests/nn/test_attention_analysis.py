"""Captured maps are those the model uses; ranks, variances and divergences equal what numpy says."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn_params

from jaxrec.batch import right_align
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.models.stosa import StosaRecommender
from jaxrec.nn.attention import masked_softmax
from jaxrec.nn.attention_analysis import (
    capture_attention,
    effective_rank,
    key_block,
    lag_block,
    numeric_rank,
    row_divergence,
    sample_attention,
    sample_variance,
)
from jaxrec.nn.diffusion_attention import DiffusionAttention
from jaxrec.nn.refinement import Refined
from jaxrec.nn.stochastic import WassersteinScores
from jaxrec.nn.vae_attention import VaeAttention

SIZES = {"num_items": 20, "max_length": 8, "width": 8, "num_layers": 2, "num_heads": 2}
MODELS = {
    "dot": EncoderRecommender(**SIZES),
    "refined": EncoderRecommender(**SIZES, attention=Refined()),
    "vae": EncoderRecommender(**SIZES, attention=VaeAttention(latent_width=3)),
    "diffusion": EncoderRecommender(**SIZES, attention=DiffusionAttention()),
    "wasserstein": StosaRecommender(**SIZES),
    "refined-wasserstein": StosaRecommender(**SIZES, attention=Refined(base=WassersteinScores())),
}
HISTORY = [3, 1, 4, 15, 9]
KEY = jax.random.key(5)


@functools.cache
def parameters(name):
    return drawn_params(MODELS[name])


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_and_head_is_captured(name):
    maps = capture_attention(MODELS[name], parameters(name), HISTORY, key=KEY)
    assert maps.items.tolist() == HISTORY
    assert maps.weights.shape == maps.logits.shape == (2, 2, 5, 5)
    np.testing.assert_allclose(maps.weights.sum(-1), 1.0, atol=1e-6)
    assert np.all(np.triu(maps.weights, 1) == 0)
    assert np.abs(maps.weights[0] - maps.weights[1]).max() > 1e-4


@pytest.mark.parametrize("name", ["dot", "wasserstein"])
def test_what_is_captured_is_what_mixes_the_values(name):
    """In a padded row, through the weights that the layers sow themselves."""
    items = jnp.asarray(right_align([HISTORY], 8))
    _, variables = MODELS[name].module.apply(
        {"params": parameters(name)}, items, train=False, mutable=["intermediates"]
    )
    blocks = variables["intermediates"]["encoder"]
    maps = capture_attention(MODELS[name], parameters(name), HISTORY)
    for layer in range(2):
        sown = blocks[f"block_{layer}"]["attention"]["attention_weights"][0]
        np.testing.assert_allclose(maps.weights[layer], sown[0, :, -5:, -5:], atol=1e-6)
    mask = np.tril(np.ones((5, 5), bool))
    np.testing.assert_allclose(masked_softmax(maps.logits, mask), maps.weights, atol=1e-6)


def test_the_newest_items_are_read():
    history = list(range(1, 13))
    maps = capture_attention(MODELS["dot"], parameters("dot"), history)
    assert maps.items.tolist() == history[-8:]


def test_a_stochastic_map_is_a_function_of_its_key():
    model, params = MODELS["diffusion"], parameters("diffusion")
    first, again = (capture_attention(model, params, HISTORY, key=KEY).weights for _ in range(2))
    other = capture_attention(model, params, HISTORY, key=jax.random.key(6)).weights
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    with pytest.raises(ValueError, match="DiffusionAttention draws at inference; pass key="):
        capture_attention(model, params, HISTORY)


def test_samples_vary_where_the_model_draws():
    sampling = dataclasses.replace(
        MODELS["vae"], attention=MODELS["vae"].attention.clone(sample_at_inference=True)
    )
    for model, name in ((sampling, "vae"), (MODELS["diffusion"], "diffusion")):
        maps = sample_attention(model, parameters(name), HISTORY, key=KEY, num_samples=4)
        assert maps.weights.shape == (4, 2, 2, 5, 5)
        variance = sample_variance(maps.weights)
        np.testing.assert_allclose(variance, np.var(maps.weights, axis=0, ddof=1), atol=1e-7)
        assert np.all(variance[..., 0, :] < 1e-12), "the oldest item has one key"
        assert np.all(variance[..., 1:, :].sum(-1) > 1e-8)
    still = sample_attention(MODELS["vae"], parameters("vae"), HISTORY, key=KEY, num_samples=3)
    np.testing.assert_allclose(sample_variance(still.weights), 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("history", "message"),
    [([], "the history is empty"), ([3, 21], "from 3 to 21, but .* 1 to 20"), ([0, 3], "from 0 to 3")],
)
def test_a_bad_history_is_refused(history, message):
    with pytest.raises(ValueError, match=message):
        capture_attention(MODELS["dot"], parameters("dot"), history)


def test_bad_requests_are_refused():
    popularity = PopularityRecommender(num_items=20)
    with pytest.raises(ValueError, match="PopularityRecommender has no attention"):
        capture_attention(popularity, {}, HISTORY)
    with pytest.raises(ValueError, match="num_samples is 0"):
        sample_attention(MODELS["dot"], parameters("dot"), HISTORY, key=KEY, num_samples=0)
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        sample_variance(jnp.zeros((1, 3)))


def test_ranks_of_known_matrices():
    left, right = np.random.default_rng(0).normal(size=(2, 4, 9, 3)).astype(np.float32)
    products = 1000 * left @ right.swapaxes(-1, -2)
    assert numeric_rank(products).tolist() == [3, 3, 3, 3]
    assert numeric_rank(jnp.stack([jnp.zeros((5, 5)), jnp.eye(5)])).tolist() == [0, 5]
    np.testing.assert_allclose(effective_rank(jnp.diag(jnp.array([2.0, 2.0, 2.0, 0.0]))), 3.0, rtol=1e-5)
    np.testing.assert_allclose(effective_rank(jnp.ones((4, 4))), 1.0, atol=1e-3)


def test_blocks_hold_only_what_causal_rows_may_use():
    for length in (6, 7):
        rows, keys = np.indices((length, length))
        allowed = jnp.asarray(np.where(keys <= rows, 1.0, np.nan))
        lags = jnp.asarray(np.where(keys <= rows, rows - keys, -1))
        half = length // 2
        assert np.all(np.isfinite(key_block(allowed)))
        assert key_block(allowed).shape == lag_block(lags).shape == (length - half, half)
        np.testing.assert_array_equal(lag_block(lags), np.tile(np.arange(half)[::-1], (length - half, 1)))


def test_the_bound_of_query_key_logits_does_not_bind_generated_ones():
    sizes = SIZES | {"max_length": 16, "width": 4}
    history = np.random.default_rng(1).integers(1, 21, 16)
    ranks = {}
    for name, attention in (("dot", MODELS["dot"].attention), ("vae", MODELS["vae"].attention)):
        model = EncoderRecommender(**sizes, attention=attention)
        logits = capture_attention(model, drawn_params(model), history).logits
        ranks[name] = np.asarray(numeric_rank(key_block(logits)))
    assert np.all(ranks["dot"] <= 2), "C"
    assert np.all(ranks["vae"] >= 4)


def test_divergence_is_that_of_numpy():
    rng = np.random.default_rng(3)
    target, weights = rng.dirichlet(np.ones(4), size=(2, 3, 4))
    expected = (target * np.log(target / weights)).sum(-1)
    np.testing.assert_allclose(row_divergence(target, weights), expected, rtol=1e-4)
    np.testing.assert_allclose(row_divergence(target, target), 0.0, atol=1e-6)
    eye = jnp.eye(3)
    np.testing.assert_allclose(row_divergence(eye, jnp.full((3, 3), 1 / 3)), np.log(3.0), rtol=1e-5)
    np.testing.assert_array_equal(row_divergence(jnp.zeros((2, 2)), jnp.eye(2)), 0.0)
    assert np.all(np.isfinite(row_divergence(eye, jnp.zeros((3, 3)))))
