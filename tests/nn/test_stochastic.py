"""STOSA's parts against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.nn.attention import attention_mask
from jaxrec.nn.stochastic import (
    DistributionalAttention,
    Gaussian,
    WassersteinScores,
    deviation,
    pairwise_wasserstein,
    positive,
    wasserstein_distance,
)
from jaxrec.nn.stochastic_encoder import DistributionalEncoder, GaussianInput

HEADS, WIDTH, LENGTH = 2, 8, 4
CHANNELS = WIDTH // HEADS
ITEMS = jnp.array([[0, 2, 7, 1], [3, 1, 4, 1]], jnp.int32)
MASK = attention_mask(ITEMS, causal=True)


def draw(seed, *shape):
    rng = np.random.default_rng(seed)
    return Gaussian(
        jnp.asarray(rng.normal(size=shape), jnp.float32), jnp.asarray(rng.uniform(0.1, 3, shape), jnp.float32)
    )


HIDDEN = draw(0, 2, LENGTH, WIDTH)


def plain_distance(first_mean, first_covariance, second_mean, second_covariance):
    """Of Gaussians with diagonal covariances, by the general formula with matrix roots."""
    first, second = np.diag(first_covariance), np.diag(second_covariance)
    cross = np.sqrt(np.sqrt(first) @ second @ np.sqrt(first))
    return np.sum((first_mean - second_mean) ** 2) + np.trace(first + second - 2 * cross)


def test_distance_equals_the_general_formula():
    first, second = draw(1, 5, 3), draw(2, 5, 3)
    found = wasserstein_distance(first, second)
    for i in range(5):
        parts = (np.asarray(part[i], np.float64) for part in (*first, *second))
        np.testing.assert_allclose(found[i], plain_distance(*parts), rtol=1e-5)


def test_pairwise_equals_one_by_one():
    first, second = draw(3, 2, 4, HEADS, CHANNELS), draw(4, 2, 5, HEADS, CHANNELS)
    found = np.asarray(pairwise_wasserstein(first, second))
    assert found.shape == (2, HEADS, 4, 5)
    for b, h, i, j in np.ndindex(found.shape):
        one = wasserstein_distance(
            *(Gaussian(g.mean[b, k, h], g.covariance[b, k, h]) for g, k in ((first, i), (second, j)))
        )
        np.testing.assert_allclose(found[b, h, i, j], one, rtol=1e-4, atol=1e-5)
    same = np.asarray(pairwise_wasserstein(first, first, jnp.bfloat16))
    np.testing.assert_allclose(np.diagonal(same, axis1=2, axis2=3), 0.0, atol=1e-5)


def test_deviation_has_a_finite_gradient_at_zero():
    np.testing.assert_allclose(deviation(jnp.array([4.0, 0.25])), [2.0, 0.5])
    gradient = jax.grad(lambda x: jnp.sum(deviation(positive(x))))(jnp.array([-200.0, -20.0, 3.0]))
    assert np.all(np.isfinite(gradient))


def dense(params, inputs):
    kernel, bias = (np.asarray(params[name], np.float64) for name in ("kernel", "bias"))
    return np.tensordot(inputs, kernel, axes=(-1, 0)) + bias


def plain_positive(values):
    return np.where(values > 0, values, np.exp(np.minimum(values, 0)) - 1) + 1


def plain_scores(params):
    mean, covariance = (np.asarray(stream, np.float64) for stream in HIDDEN)
    sides = []
    for name in ("query", "key"):
        means = dense(params[f"mean_{name}"], mean)
        sides.append((means, plain_positive(dense(params[f"covariance_{name}"], covariance))))
    scores = np.zeros((2, HEADS, LENGTH, LENGTH))
    for b, h, i, j in np.ndindex(scores.shape):
        first, second = ((m[b, k, h], c[b, k, h]) for (m, c), k in zip(sides, (i, j), strict=True))
        scores[b, h, i, j] = -plain_distance(*first, *second) / np.sqrt(CHANNELS)
    return scores


def plain_weights(scores):
    exponentials = np.where(np.asarray(MASK), np.exp(scores - scores.max(-1, keepdims=True)), 0.0)
    total = exponentials.sum(-1, keepdims=True)
    return exponentials / np.where(total == 0, 1, total)


def test_scores_equal_plain_numpy():
    module = WassersteinScores(num_heads=HEADS)
    params = module.init(jax.random.key(0), HIDDEN, HIDDEN, MASK, train=False)["params"]
    output = module.apply({"params": params}, HIDDEN, HIDDEN, MASK, train=False)
    scores = plain_scores(params)
    np.testing.assert_allclose(output.logits, scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(output.weights, plain_weights(scores), atol=1e-5)


def test_means_mix_by_weights_and_covariances_by_their_squares():
    module = DistributionalAttention(WassersteinScores(), HEADS)
    params = module.init(jax.random.key(1), HIDDEN, HIDDEN, MASK, train=False)["params"]
    mixed, penalties = module.apply({"params": params}, HIDDEN, HIDDEN, MASK, train=False)
    weights = plain_weights(plain_scores(params["scores"]))
    means = dense(params["mean_value"], np.asarray(HIDDEN.mean, np.float64))
    covariances = plain_positive(dense(params["covariance_value"], np.asarray(HIDDEN.covariance, np.float64)))
    for name, found, weight, values in (
        ("mean", mixed.mean, weights, means),
        ("covariance", mixed.covariance, weights**2, covariances),
    ):
        context = np.einsum("bhij,bjhc->bihc", weight, values).reshape(2, LENGTH, WIDTH)
        kernel = np.asarray(params[f"{name}_output"]["kernel"]).reshape(WIDTH, WIDTH)
        expected = context @ kernel + np.asarray(params[f"{name}_output"]["bias"])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert penalties == {}


def test_input_is_elu_of_normed_sums_with_places_from_the_end():
    module = GaussianInput(max_length=6)
    params = module.init(jax.random.key(2), HIDDEN, train=False)["params"]
    found = module.apply({"params": params}, HIDDEN, train=False)
    table = np.asarray(params["mean_positions"]["table"])
    placed = np.asarray(HIDDEN.mean) + table[2:]
    normed = (placed - placed.mean(-1, keepdims=True)) / np.sqrt(placed.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(found.mean, plain_positive(normed) - 1, atol=1e-5)
    assert np.all(np.asarray(found.covariance) > 0)


def test_encoder_keeps_covariances_positive_and_last_only_agrees():
    encoder = DistributionalEncoder(2, HEADS, WIDTH)
    params = encoder.init(jax.random.key(3), HIDDEN, MASK, train=False)["params"]
    whole, _ = encoder.apply({"params": params}, HIDDEN, MASK, train=False)
    last, _ = encoder.apply({"params": params}, HIDDEN, MASK, train=False, last_only=True)
    assert np.all(np.asarray(whole.covariance) > 0)
    for ours, theirs in zip(last, whole, strict=True):
        np.testing.assert_allclose(ours, theirs[:, -1:], atol=1e-5)
