"""Refined attention at the identity has a closed form; lags, places and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.nn.attention import DotProduct, attention_mask
from jaxrec.nn.refinement import Refined
from jaxrec.nn.stochastic import Gaussian, WassersteinScores
from jaxrec.nn.vae_attention import VaeAttention

HEADS, WIDTH, LENGTH, MAX_LENGTH = 2, 8, 5, 7
ITEMS = jnp.array([[0, 4, 2, 7, 1], [3, 1, 4, 1, 5]], jnp.int32)
HIDDEN = jax.random.normal(jax.random.key(0), (2, LENGTH, WIDTH))
MASK = attention_mask(ITEMS, causal=True)


def softmax(logits, mask):
    exponentials = np.where(mask, np.exp(logits), 0.0)
    total = exponentials.sum(-1, keepdims=True)
    return exponentials / np.where(total == 0, 1, total)


def run(base, mechanism, coordinates="lags", change=None, scale=1.0):
    """Weights of the base and of its refinement, the matrices U given by ``change(name)``, by default the identity."""
    module = Refined(base, mechanism, coordinates, max_length=MAX_LENGTH, num_heads=HEADS)
    inputs = HIDDEN
    if isinstance(base, WassersteinScores):
        inputs = Gaussian(HIDDEN, jnp.square(HIDDEN))
    params = module.init(jax.random.key(1), inputs, inputs, MASK, train=False)["params"]
    for name in params:
        if name.startswith("deviation"):
            matrix = np.eye(MAX_LENGTH) if change is None else change(name.removeprefix("deviation_"))
            params[name] = jnp.asarray(matrix - np.eye(MAX_LENGTH), jnp.float32)
    params["scale"] = jnp.full(HEADS, scale)
    base = base.clone(num_heads=HEADS)
    first = base.apply({"params": params["scores"]}, inputs, inputs, MASK, train=False)
    second = module.apply({"params": params}, inputs, inputs, MASK, train=False)
    return first, np.asarray(second.weights)


def expected_at_identity(mechanism, first, scale=1.0):
    weights, mask = np.asarray(first.weights, np.float64), np.asarray(MASK)
    scores = scale * weights @ weights.swapaxes(-1, -2) / np.sqrt(MAX_LENGTH)
    if mechanism == "additive":
        return softmax(np.asarray(first.logits) + scores, mask)
    if mechanism == "simple":
        return softmax(scores, mask)
    product = np.where(mask, softmax(scores, mask) @ weights, 0.0)
    total = product.sum(-1, keepdims=True)
    return product / np.where(total == 0, 1, total)


@pytest.mark.parametrize("coordinates", ["lags", "places"])
@pytest.mark.parametrize("mechanism", ["simple", "value_weighted", "additive"])
@pytest.mark.parametrize("base", [DotProduct(), WassersteinScores()], ids=["dot", "wasserstein"])
def test_identity_compares_rows_of_the_base(base, mechanism, coordinates):
    first, weights = run(base, mechanism, coordinates, scale=3.0)
    np.testing.assert_allclose(weights, expected_at_identity(mechanism, first, scale=3.0), atol=2e-6)


@pytest.mark.parametrize("base", [DotProduct(), WassersteinScores()], ids=["dot", "wasserstein"])
def test_additive_at_zero_is_the_base(base):
    first, weights = run(base, "additive", change=lambda name: np.zeros((MAX_LENGTH, MAX_LENGTH), np.float32))
    np.testing.assert_allclose(weights, first.weights, atol=1e-7)


def elu_plus_one(values):
    return np.where(values > 0, values, np.exp(np.minimum(values, 0)) - 1) + 1


@pytest.mark.parametrize("coordinates", ["lags", "places"])
def test_stochastic_is_the_distance_of_rows_as_gaussians(coordinates):
    rng = np.random.default_rng(3)
    matrices = {name: rng.normal(size=(MAX_LENGTH, MAX_LENGTH)) for name in ("mean", "covariance")}
    matrices = {name: matrix.astype(np.float32) for name, matrix in matrices.items()}
    first, weights = run(WassersteinScores(), "stochastic", coordinates, change=matrices.get, scale=0.5)
    base = np.asarray(first.weights, np.float64)
    rows = np.zeros((2, HEADS, LENGTH, MAX_LENGTH))
    for i in range(LENGTH):
        shift = LENGTH - 1 - i if coordinates == "lags" else 0
        for j in range(i + 1):
            rows[:, :, i, MAX_LENGTH - LENGTH + j + shift] = base[:, :, i, j]
    means = rows @ matrices["mean"]
    deviations = np.sqrt(elu_plus_one(rows @ matrices["covariance"]))
    points = np.concatenate([means, deviations], -1)
    distances = np.sum((points[..., :, None, :] - points[..., None, :, :]) ** 2, -1)
    expected = softmax(-0.5 * distances / np.sqrt(MAX_LENGTH), np.asarray(MASK))
    np.testing.assert_allclose(weights, expected, atol=1e-5)


@pytest.mark.parametrize("coordinates", ["lags", "places"])
def test_matrices_act_in_the_rows_own_coordinates(coordinates):
    """Loops over every pair of slots, with full matrices."""
    rng = np.random.default_rng(4)
    shape = (MAX_LENGTH, MAX_LENGTH)
    matrices = {name: rng.normal(size=shape).astype(np.float32) for name in ("query", "key")}
    first, weights = run(DotProduct(), "simple", coordinates, change=matrices.get)
    base = np.asarray(first.weights, np.float64)
    product = matrices["query"].astype(np.float64) @ matrices["key"].T
    scores = np.zeros_like(base)
    for i in range(LENGTH):
        newest = i if coordinates == "lags" else LENGTH - 1
        for j in range(LENGTH):
            for m in range(i + 1):
                for n in range(min(i, j) + 1 if coordinates == "lags" else j + 1):
                    weight = product[MAX_LENGTH - 1 - (newest - m), MAX_LENGTH - 1 - (newest - n)]
                    scores[:, :, i, j] += base[:, :, i, m] * weight * base[:, :, j, n]
    expected = softmax(scores / np.sqrt(MAX_LENGTH), np.asarray(MASK))
    np.testing.assert_allclose(weights, expected, atol=1e-5)


def test_value_weighting_ignores_the_sign_of_its_matrix():
    def change(name):
        return -np.eye(MAX_LENGTH, dtype=np.float32) if name == "value" else np.eye(MAX_LENGTH)

    first, weights = run(DotProduct(), "value_weighted", change=change)
    np.testing.assert_allclose(weights, expected_at_identity("value_weighted", first), atol=2e-6)


def test_matrices_start_near_the_identity():
    module = Refined(mechanism="value_weighted", initial_noise=0.01, max_length=50, num_heads=HEADS)
    params = module.init(jax.random.key(0), HIDDEN, HIDDEN, MASK, train=False)["params"]
    for name in ("query", "key", "value"):
        deviation = np.asarray(params[f"deviation_{name}"])
        assert deviation.shape == (50, 50)
        assert 0.008 < np.std(deviation) < 0.012


def test_penalties_and_draws_of_the_base_are_kept():
    module = Refined(VaeAttention(sample_at_inference=True), max_length=MAX_LENGTH, num_heads=HEADS)
    assert module.stochastic_at_inference
    assert not Refined().stochastic_at_inference
    rngs = {"params": jax.random.key(0), "latent": jax.random.key(1)}
    output, _ = jax.eval_shape(lambda: module.init_with_output(rngs, HIDDEN, HIDDEN, MASK, train=True))
    assert set(output.penalties) == {"kl"}


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="mechanism is 'both'"):
        Refined(mechanism="both")
    with pytest.raises(ValueError, match="coordinates is 'left'"):
        Refined(coordinates="left")
    with pytest.raises(ValueError, match="its base is DotProduct"):
        Refined(mechanism="stochastic")
    module = Refined(max_length=MAX_LENGTH, num_heads=HEADS)
    with pytest.raises(ValueError, match="square map"):
        module.init(jax.random.key(0), HIDDEN[:, -1:], HIDDEN, MASK[:, :, -1:], train=False)
