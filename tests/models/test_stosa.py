"""StosaRecommender: ranking is by Wasserstein distance, losses are what they say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.batch import SequenceBatch
from jaxrec.models.stosa import DistanceLoss, StosaRecommender, to_items, to_points, to_queries
from jaxrec.negatives import draw_negatives
from jaxrec.nn.refinement import Refined
from jaxrec.nn.stochastic import Gaussian, WassersteinScores, positive, wasserstein_distance
from jaxrec.recommender import Recommender

MODEL = StosaRecommender(num_items=30, max_length=6, width=8, num_layers=1, num_heads=2, dropout_rate=0.0)
ITEMS = jnp.array([[0, 0, 3, 9, 30, 5], [1, 2, 3, 4, 5, 6]], jnp.int32)
TARGETS = jnp.array([[0, 0, 9, 30, 5, 8], [2, 3, 4, 5, 6, 7]], jnp.int32)
BATCH = SequenceBatch(ITEMS, TARGETS, (TARGETS > 0).astype(jnp.float32))
PARAMS = jax.tree.map(lambda leaf: 3.0 * leaf, MODEL.init(jax.random.key(0)))


def catalogue():
    mean, covariance = (PARAMS[f"{name}_embedding"]["table"] for name in ("mean", "covariance"))
    return Gaussian(mean, positive(covariance))


def hidden_states():
    return MODEL.module.apply({"params": PARAMS}, ITEMS, train=False)[0]


def test_it_is_a_recommender():
    assert isinstance(MODEL, Recommender)
    assert hash(MODEL) == hash(dataclasses.replace(MODEL))
    assert MODEL.target_positions == "all"
    assert not MODEL.stochastic


@pytest.mark.slow
def test_scores_are_negative_distances_up_to_a_constant_of_the_history():
    query, items = MODEL.query(PARAMS, ITEMS, jax.random.key(0)), MODEL.items(PARAMS)
    assert query.shape == (2, 17)
    assert items.shape == (128, 17)
    scores = np.asarray(query @ items.T)
    last = jax.tree.map(lambda stream: stream[:, -1], hidden_states())
    for row in range(2):
        distances = wasserstein_distance(Gaussian(last.mean[row], last.covariance[row]), catalogue())
        constant = scores[row] + np.asarray(distances)
        np.testing.assert_allclose(constant, np.full(128, constant[0]), atol=1e-3)


def test_query_equals_the_last_position_in_any_bucket():
    short = MODEL.query(PARAMS, ITEMS[:1, 2:], jax.random.key(0))
    np.testing.assert_allclose(short, MODEL.query(PARAMS, ITEMS[:1], jax.random.key(1)), atol=1e-5)
    assert np.all(np.isfinite(MODEL.query(PARAMS, jnp.zeros((1, 4), jnp.int32), jax.random.key(0))))


def test_softmax_loss_is_cross_entropy_over_negative_distances():
    output = MODEL.loss(PARAMS, BATCH, jax.random.key(1))
    hidden, table, total = hidden_states(), catalogue(), 0.0
    for b, i in zip(*np.nonzero(np.asarray(TARGETS)), strict=True):
        state = Gaussian(hidden.mean[b, i], hidden.covariance[b, i])
        logits = -np.asarray(wasserstein_distance(state, table), np.float64)[1:31]
        total += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[TARGETS[b, i] - 1]
    np.testing.assert_allclose(output.total, total, rtol=1e-4)
    assert output.weight == 10


def test_published_loss_equals_its_formula():
    loss, key = DistanceLoss(margin_weight=0.5), jax.random.key(7)
    states, table = jax.tree.map(lambda stream: stream.reshape(-1, 8), hidden_states()), catalogue()
    targets, weights = TARGETS.reshape(-1), BATCH.weights.reshape(-1)
    total, weight = loss(
        to_queries(to_points(states)), to_items(to_points(table)), targets, weights, key, num_items=30
    )
    negatives = np.asarray(draw_negatives(key, targets, 1, 30))[:, 0]
    expected, hinges = 0.0, 0
    for i in np.nonzero(np.asarray(weights))[0]:
        history, target, negative = (
            Gaussian(source.mean[row], source.covariance[row])
            for source, row in ((states, i), (table, targets[i]), (table, negatives[i]))
        )
        good, bad = (float(wasserstein_distance(history, item)) for item in (target, negative))
        margin = max(0.0, good - float(wasserstein_distance(target, negative)))
        expected += np.log1p(np.exp(-(bad - good))) + 0.5 * margin
        hinges += margin > 0
    assert hinges
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert weight == 10


@pytest.mark.parametrize("loss", [MODEL.loss_function, DistanceLoss()], ids=["softmax", "distance"])
def test_gradients_are_finite_and_reach_every_leaf(loss):
    model = dataclasses.replace(MODEL, loss_function=loss)
    gradient = jax.jit(jax.grad(lambda params: model.loss(params, BATCH, jax.random.key(2)).total))(PARAMS)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.all(np.isfinite(leaf)), name
        assert np.any(np.asarray(leaf) != 0), name


def test_refined_attention_makes_awrsr():
    refined = Refined(base=WassersteinScores(), mechanism="stochastic")
    model = dataclasses.replace(MODEL, attention=refined)
    params = model.init(jax.random.key(0))
    assert "deviation_mean" in params["encoder"]["block_0"]["attention"]["scores"]
    assert params["encoder"]["block_0"]["attention"]["scores"]["deviation_mean"].shape == (6, 6)
    assert np.isfinite(model.loss(params, BATCH, jax.random.key(0)).total)


def test_penalties_have_no_coefficient_and_are_refused(monkeypatch):
    def with_penalty(self, query, key, mask, *, train):
        output = original(self, query, key, mask, train=train)
        return output._replace(penalties={"kl": jnp.zeros(mask.shape[:1] + mask.shape[2:3])})

    original = WassersteinScores.__call__
    monkeypatch.setattr(WassersteinScores, "__call__", with_penalty)
    with pytest.raises(ValueError, match=r"WassersteinScores has the penalties \['kl'\]"):
        MODEL.loss(PARAMS, BATCH, jax.random.key(0))


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="not divisible"):
        StosaRecommender(width=10, num_heads=4)
    with pytest.raises(ValueError, match="num_layers must be at least 1"):
        StosaRecommender(num_layers=0)
