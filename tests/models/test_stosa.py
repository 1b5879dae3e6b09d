"""StosaRecommender: ranking is by Wasserstein distance, losses are what they say."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.batch import SequenceBatch
from jaxrec.losses.negatives import draw_negatives
from jaxrec.models.stosa import DistanceLoss, StosaRecommender, to_items, to_points, to_queries
from jaxrec.nn.refinement import Refined
from jaxrec.nn.stochastic import Gaussian, WassersteinScores, positive, wasserstein_distance
from jaxrec.recommender import Recommender

MODEL = StosaRecommender(num_items=30, max_length=6, width=8, num_layers=1, num_heads=2, dropout_rate=0.0)
ITEMS = jnp.array([[0, 0, 3, 9, 30, 5], [1, 2, 3, 4, 5, 6]], jnp.int32)
TARGETS = jnp.array([[0, 0, 9, 30, 5, 8], [2, 3, 4, 5, 6, 7]], jnp.int32)
BATCH = SequenceBatch(ITEMS, TARGETS, (TARGETS > 0).astype(jnp.float32))
PARAMS = jax.tree.map(lambda leaf: 3.0 * leaf, jax.jit(MODEL.init)(jax.random.key(0)))


def catalogue():
    mean, covariance = (PARAMS[f"{name}_embedding"]["table"] for name in ("mean", "covariance"))
    return Gaussian(mean, positive(covariance))


@functools.cache
def hidden_states():
    return jax.jit(lambda params: MODEL.module.apply({"params": params}, ITEMS, train=False)[0])(PARAMS)


@functools.cache
def distances_to_catalogue():
    """Of every position of the batch from every item: ``[2, 6, 128]``."""
    states = jax.tree.map(lambda stream: stream[:, :, None], hidden_states())
    return np.asarray(jax.jit(wasserstein_distance)(states, catalogue()), np.float64)


def test_it_is_a_recommender():
    assert isinstance(MODEL, Recommender)
    assert hash(MODEL) == hash(dataclasses.replace(MODEL))
    assert MODEL.target_positions == "all"
    assert not MODEL.stochastic


@pytest.mark.slow
def test_scores_are_negative_distances_up_to_a_constant_of_the_history():
    query, items = jax.jit(MODEL.query)(PARAMS, ITEMS, jax.random.key(0)), jax.jit(MODEL.items)(PARAMS)
    assert query.shape == (2, 24)
    assert items.shape == (128, 24)
    scores = np.asarray(query @ items.T)
    for row in range(2):
        constant = scores[row] + distances_to_catalogue()[row, -1]
        np.testing.assert_allclose(constant, np.full(128, constant[0]), atol=1e-3)


def test_the_norm_of_an_item_survives_bfloat16():
    """Its three parts are numbers of bfloat16 and add up to it; the gradient is that of the norm."""
    points = 3.0 * jax.random.normal(jax.random.key(2), (50, 16))
    parts = to_items(points)[:, :3]
    np.testing.assert_array_equal(parts.astype(jnp.bfloat16).astype(jnp.float32), parts)
    np.testing.assert_array_equal(np.asarray(parts, np.float64).sum(1), -jnp.square(points).sum(1))
    gradient = jax.grad(lambda points: to_items(points)[:, :3].sum())(points)
    np.testing.assert_allclose(gradient, -2.0 * points, rtol=1e-6)


def test_softmax_loss_is_cross_entropy_over_negative_distances():
    output = jax.jit(MODEL.loss)(PARAMS, BATCH, jax.random.key(1))
    total = 0.0
    for b, i in zip(*np.nonzero(np.asarray(TARGETS)), strict=True):
        logits = -distances_to_catalogue()[b, i, 1:31]
        total += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[TARGETS[b, i] - 1]
    np.testing.assert_allclose(output.total, total, rtol=1e-4)
    assert output.weight == 10


def test_published_loss_equals_its_formula():
    loss, key = DistanceLoss(margin_weight=0.5), jax.random.key(7)
    states, table = jax.tree.map(lambda stream: stream.reshape(-1, 8), hidden_states()), catalogue()
    targets, weights = TARGETS.reshape(-1), BATCH.weights.reshape(-1)

    @jax.jit
    def measure(states, table):
        negatives = draw_negatives(key, targets, 1, 30)[:, 0]
        good = Gaussian(table.mean[targets], table.covariance[targets])
        bad = Gaussian(table.mean[negatives], table.covariance[negatives])
        distances = [wasserstein_distance(*pair) for pair in ((states, good), (states, bad), (good, bad))]
        queries, items = to_queries(to_points(states)), to_items(to_points(table))
        return loss(queries, items, targets, weights, key, num_items=30), distances

    (total, weight), distances = measure(states, table)
    expected, hinges = 0.0, 0
    for i in np.nonzero(np.asarray(weights))[0]:
        good, bad, between = (float(distance[i]) for distance in distances)
        margin = max(0.0, good - between)
        expected += np.log1p(np.exp(-(bad - good))) + 0.5 * margin
        hinges += margin > 0
    assert hinges
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert weight == 10


def test_refined_attention_makes_awrsr():
    refined = Refined(base=WassersteinScores(), mechanism="stochastic")
    model = dataclasses.replace(MODEL, attention=refined)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert params["encoder"]["block_0"]["attention"]["scores"]["deviation_mean"].shape == (6, 6)


def test_penalties_have_no_coefficient_and_are_refused(monkeypatch):
    def with_penalty(self, query, key, mask, *, train):
        output = original(self, query, key, mask, train=train)
        return output._replace(penalties={"kl": jnp.zeros(mask.shape[:1] + mask.shape[2:3])})

    original = WassersteinScores.__call__
    monkeypatch.setattr(WassersteinScores, "__call__", with_penalty)
    with pytest.raises(ValueError, match=r"WassersteinScores has the penalties \['kl'\]"):
        jax.eval_shape(MODEL.loss, PARAMS, BATCH, jax.random.key(0))


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="not divisible"):
        StosaRecommender(width=10, num_heads=4)
    with pytest.raises(ValueError, match="num_layers must be at least 1"):
        StosaRecommender(num_layers=0)
