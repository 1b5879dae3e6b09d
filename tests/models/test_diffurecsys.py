"""DiffuRecSys in both forms: against plain numpy and against DiffuRec, causality, options, export."""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_denoising import (
    as_numpy,
    corrupt,
    norm,
    prefix_approximator,
    reverse,
    step_embedding,
    target_approximator,
)

from jaxrec.batch import SequenceBatch, right_align, row_keys
from jaxrec.devices.random_bits import counters, hash_normal, row_normal, row_uniform
from jaxrec.diffusion import Noise, TruncatedLinearSchedule, draw_normal, fold_key, split_key
from jaxrec.models.denoising import Objective
from jaxrec.models.diffurec import DiffuRecRecommender
from jaxrec.models.diffurecsys import DiffuRecSysRecommender
from jaxrec.recommender import Recommender

KEY = jax.random.key(0)
PREFIX = DiffuRecSysRecommender(
    num_items=20,
    max_length=6,
    width=8,
    num_layers=2,
    num_heads=2,
    schedule=TruncatedLinearSchedule(4),
    uncertainty=0.3,
)
CACHED = dataclasses.replace(PREFIX, form="history-cached", target_layers=2, positions=True)
HISTORIES = [[3, 1, 2], [4, 1, 5, 2, 6, 9], [7], []]
QUERY = jax.jit(DiffuRecSysRecommender.query, static_argnums=0)


def parameters(model):
    """Random parameters of the right names and shapes, none of them at an initial 0 or 1.

    Each leaf is drawn by its own name, so that a leaf more leaves the others as they are.
    """

    def draw(path, leaf):
        rng = np.random.default_rng(zlib.crc32(jax.tree_util.keystr(path).encode()))
        return rng.normal(0.3, 0.4, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, KEY))


def variant(form, **changes):
    return dataclasses.replace(PREFIX if form == "per-prefix" else CACHED, **changes)


def encoded_history(model, params, items):
    """The states ``[B, L, D]`` of the cached form's encoder, without dropout."""
    network = dataclasses.replace(model, dropout_rate=0.0, input_dropout_rate=0.0).network

    @jax.jit
    def encode(params, items):
        return network.apply({"params": params}, items, train=True, method="encode").states

    return encode(params, items)


@pytest.mark.slow
@pytest.mark.parametrize("cross", ["softmax", "linear"])
@pytest.mark.parametrize(
    ("form", "changes"),
    [("per-prefix", {}), ("per-prefix", {"token_queries": True}), ("history-cached", {})],
)
def test_query_against_numpy(form, changes, cross):
    """The reverse process row by row; the history's encoder is taken as given."""
    model = variant(form, cross_attention=cross, **changes)
    params = parameters(model)
    items = right_align(HISTORIES, 6)
    ours = QUERY(model, params, items, KEY)
    alone = QUERY(model, params, right_align(HISTORIES[:1], 3), KEY)
    np.testing.assert_allclose(alone[0], ours[0], atol=3e-5, err_msg="the same in another batch and bucket")
    if form == "history-cached":
        states = encoded_history(model, params, items)
    p = as_numpy(params)
    sample_keys, signal_keys = split_key(row_keys(KEY, items))
    start_keys, noise_keys = split_key(sample_keys)
    reference = prefix_approximator if form == "per-prefix" else target_approximator
    for row, history in enumerate(HISTORIES[:3]):
        if form == "per-prefix":
            e = norm(p["history_input"]["norm"], p["item_embedding"]["table"][history])
        else:
            e = np.asarray(states[row, -len(history) :], np.float64)

        def denoise(x, t, row=row, e=e):
            normal = np.asarray(hash_normal(fold_key(signal_keys[row], t), counters((6, 8))[::-1]))
            normal = normal[-len(e) :] if form == "per-prefix" else normal[-1]
            sizes = {"num_steps": 4, "heads": 2, "scale": 0.3, "cross": cross, **changes}
            return reference(p["approximator"], e, x, t, normal, **sizes)

        def step_noise(t, row=row):
            return np.asarray(draw_normal(fold_key(noise_keys[row], t), (8,)))

        start = draw_normal(start_keys[row], (8,))
        np.testing.assert_allclose(ours[row], reverse(denoise, start, step_noise, 4), atol=1e-4)
    assert np.all(np.isfinite(ours[3]))


def random_batch(form, rows=3, length=6, seed=0):
    rng = np.random.default_rng(seed)
    items = rng.integers(1, 21, (rows, length + 1)).astype(np.int32)
    items[0, :3] = 0
    inputs, targets = items[:, :-1], items[:, 1:].copy()
    targets[inputs == 0] = 0
    weights = (inputs > 0).astype(np.float32)
    if form == "per-prefix":
        weights[:, :-1] = 0.0
    return SequenceBatch(inputs, targets, weights)


def loss_and_gradient(model, params, batch, key=KEY):
    @jax.jit
    def run(params, batch, key):
        return jax.value_and_grad(lambda p: model.loss(p, batch, key).total)(params)

    return run(params, batch, key)


def noised_targets(key, x0):
    """Steps ``[B, N]`` and shared offset noise of the shape of ``x0`` ``[B, N, D]``, from the keys of training."""
    step_key, noise_key = jax.random.split(key, 6)[:2]
    t = np.floor(4 * np.asarray(row_uniform(step_key, x0.shape[:2]))).astype(int)
    plain_key, offset_key = split_key(noise_key)
    return t, row_normal(plain_key, x0.shape) + 0.1 * row_normal(offset_key, (*x0.shape[:2], 1))


@pytest.mark.parametrize(
    ("form", "own_estimate"), [("per-prefix", 0.0), ("history-cached", 0.0), ("history-cached", 1.0)]
)
def test_training_against_numpy(form, own_estimate):
    """x̂_0 and the loss target by target; the draws are shared, and the history's encoder is taken as given."""
    objective = Objective(own_estimate=own_estimate)
    model = variant(form, dropout_rate=0.0, input_dropout_rate=0.0, objective=objective)
    params, batch = parameters(model), random_batch(form)
    target_key = jax.random.split(KEY, 4)[1]
    table = np.asarray(params["item_embedding"]["table"], np.float64)
    last = slice(-1, None) if form == "per-prefix" else slice(None)
    targets, weights = batch.targets[:, last], batch.weights[:, last]
    x0 = table[targets].astype(np.float32)

    @jax.jit
    def train(params):
        context = model._encode(params, batch.items, KEY)
        estimate = model._training_estimate(params, context, x0, 6, target_key)
        return estimate, model.loss(params, batch, KEY).total

    ours, total = train(params)
    p = as_numpy(params)
    if form == "history-cached":
        states = np.asarray(encoded_history(model, params, batch.items), np.float64)

    def approximate(row, place, x_t, t, pass_key):
        normal = np.asarray(row_normal(jax.random.split(pass_key)[0], (3, 6, 8)))[row]
        first = int((batch.items[row] == 0).sum())
        sizes = {"num_steps": 4, "heads": 2, "scale": 0.3, "cross": "softmax"}
        if form == "per-prefix":
            e = norm(p["history_input"]["norm"], table[batch.items[row, first:]])
            return prefix_approximator(p["approximator"], e, x_t, t, normal[first:], **sizes)
        e = states[row, first : place + 1]
        return target_approximator(p["approximator"], e, x_t, t, normal[place], **sizes)

    t, noise = noised_targets(target_key, x0)
    own_key, _, pass_key = jax.random.split(target_key, 6)[3:]
    jump_key, start_key, _ = jax.random.split(own_key, 3)
    start = np.asarray(row_normal(start_key, x0.shape))
    expected = 0.0
    for row, place in np.argwhere(weights > 0):
        clean = x0[row, place]
        if own_estimate:
            clean = approximate(row, place, start[row, place], 3, jump_key)
        x_t = corrupt(clean, t[row, place], np.asarray(noise)[row, place], 4)
        theirs = approximate(row, place, x_t, t[row, place], pass_key)
        np.testing.assert_allclose(ours[row, place], theirs, atol=1e-4)
        scores = table[1:21] @ theirs
        expected += np.log(np.exp(scores).sum()) - scores[targets[row, place] - 1]
    np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_dropout_of_everything_leaves_the_history_and_the_signal():
    """Cached: x̂_0 = LayerNorm(the history's state + λ (x_t + d_t))."""
    model = dataclasses.replace(CACHED, visibility="fixed", dropout_rate=1.0)
    params, batch = parameters(model), random_batch("history-cached")
    x_t = np.random.default_rng(5).normal(size=(3, 6, 8)).astype(np.float32)

    @jax.jit
    def train(params):
        context = model._encode(params, batch.items, KEY)
        normal, t = jnp.zeros_like(x_t), jnp.full((3, 6), 2)
        return context.states, model._denoise(params, context, x_t, t, normal, None, KEY)

    states, estimate = train(params)
    p = as_numpy(params)["approximator"]
    seen = 0.3 * (x_t + step_embedding(p["signal"]["step_embedding"], 2, 4, 8))
    np.testing.assert_allclose(estimate, norm(p["norm"], np.asarray(states) + seen), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "changes"),
    [
        ("per-prefix", {"cross_attention": "linear"}),
        ("per-prefix", {"cross_attention": "softmax", "token_queries": True}),
        ("history-cached", {"cross_attention": "none"}),
        ("history-cached", {"cross_attention": "softmax"}),
        ("history-cached", {"objective": Objective(self_conditioning=True)}),
    ],
)
def test_loss_and_gradient(form, changes):
    model = variant(form, **changes)
    batch = random_batch(form)
    total, gradient = loss_and_gradient(model, parameters(model), batch)
    assert np.isfinite(total)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path
    table = np.asarray(gradient["item_embedding"]["table"])
    assert np.all(table[0] == 0.0)
    assert np.all(table[21:] == 0.0)


def test_without_its_additions_it_is_diffurec():
    """No offset and no cross-attention: the same parameters give DiffuRec's loss and query."""
    model = dataclasses.replace(PREFIX, cross_attention="none", noise=Noise("none"))
    names = DiffuRecRecommender.__dataclass_fields__.keys() - {"unit_scale"}  # a part of its objective there
    diffurec = DiffuRecRecommender(**{name: getattr(model, name) for name in names})
    params, batch = parameters(model), random_batch("per-prefix")
    ours, theirs = (jax.jit(m.loss)(params, batch, KEY).total for m in (model, diffurec))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    ours, theirs = (jax.jit(m.query)(params, batch.items, KEY) for m in (model, diffurec))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("cross", ["softmax", "linear"])
def test_the_loss_of_a_position_sees_no_later_item(cross):
    """Changing items and targets after position 3 leaves the loss of positions up to 3 as it is."""
    model = dataclasses.replace(CACHED, cross_attention=cross, objective=Objective(self_conditioning=True))
    params = parameters(model)
    loss = jax.jit(model.loss)
    batch = random_batch("history-cached")
    weights = batch.weights * (np.arange(6) <= 3)
    one = loss(params, SequenceBatch(batch.items, batch.targets, weights), KEY)
    items, targets = batch.items.copy(), batch.targets.copy()
    items[:, 4:], targets[:, 4:] = 20 - items[:, 4:] % 7, 3
    other = loss(params, SequenceBatch(items, targets, weights), KEY)
    np.testing.assert_allclose(one.total, other.total, rtol=1e-6)
    whole = loss(params, SequenceBatch(items, targets, batch.weights), KEY)
    assert abs(whole.total - one.total) > 0.1


PLAIN = dataclasses.replace(
    CACHED, num_layers=1, target_layers=1, visibility="fixed", dropout_rate=0.0, input_dropout_rate=0.0
)


@pytest.fixture(scope="module")
def plain_loss():
    return jax.jit(PLAIN.loss)(parameters(PLAIN), random_batch("history-cached"), KEY).total


@pytest.mark.parametrize(
    "changes",
    [
        {"noise": Noise("none")},
        {"noise": Noise("independent")},
        {"visibility": "uncertain"},
        {"visibility": "learned"},
        {"start_from_history": False},
        {"objective": Objective(prediction="velocity")},
        {"objective": Objective(noise_power=2.0)},
        {"objective": Objective(target_dropout=0.5)},
        {"objective": Objective(own_estimate=0.5)},
        {"objective": Objective(self_conditioning=True)},
        {"objective": Objective(own_estimate=0.5, self_conditioning=True)},
        {"objective": Objective(unit_scale=True)},
    ],
)
def test_every_option_changes_the_loss_and_keeps_it_finite(changes, plain_loss):
    model = dataclasses.replace(PLAIN, **changes)
    total = jax.jit(model.loss)(parameters(model), random_batch("history-cached"), KEY).total
    assert np.isfinite(total)
    assert abs(total - plain_loss) > 1e-3


@pytest.mark.parametrize(("visibility", "form"), [("fixed", "history-cached"), ("uncertain", "per-prefix")])
def test_a_layer_norm_takes_the_shared_offset_away_where_all_channels_are_seen_alike(visibility, form):
    """Ten times the offset, the same draws: no other loss with one scale for all channels, another with several."""
    quiet = variant(form, visibility=visibility, dropout_rate=0.0, input_dropout_rate=0.0)
    loud = dataclasses.replace(quiet, noise=Noise("shared", 1.0))
    totals = [
        jax.jit(model.loss)(parameters(quiet), random_batch(form), KEY).total for model in (quiet, loud)
    ]
    if visibility == "fixed":
        np.testing.assert_allclose(totals[0], totals[1], rtol=1e-5)
    else:
        assert abs(totals[0] - totals[1]) > 1e-3


def test_a_hidden_target_still_takes_part_in_the_conversion():
    """v-prediction: x̂_0 = √ᾱ x_t − √(1 − ᾱ) v, whether the network saw x_t or not."""
    model = dataclasses.replace(PLAIN, objective=Objective(prediction="velocity"))
    params, batch = parameters(model), random_batch("history-cached")
    x_t, t = np.random.default_rng(5).normal(size=(3, 6, 8)).astype(np.float32), jnp.full((3, 6), 2)

    @jax.jit
    def estimate(x_t, hidden):
        context = model._encode(params, batch.items, None)
        return model._denoise(params, context, x_t, t, jnp.zeros_like(x_t), None, None, hidden)

    signal, _ = model.process.signal_and_noise(2, 3)
    hidden, blank = (estimate(given, jnp.ones((3, 6, 1), bool)) for given in (x_t, jnp.zeros_like(x_t)))
    np.testing.assert_allclose(hidden - blank, signal * x_t, atol=1e-5)
    assert np.abs(estimate(x_t, None) - hidden).max() > 0.01


@pytest.mark.parametrize("objective", [Objective(target_dropout=1.0), Objective(own_estimate=1.0)])
def test_a_hidden_target_cannot_be_read(objective):
    """x_t always hidden, or always made of own estimates: the estimate does not depend on the target."""
    model = dataclasses.replace(PLAIN, objective=objective)
    params, batch = parameters(model), random_batch("history-cached")

    @functools.partial(jax.jit, static_argnums=0)
    def estimate(model, x0):
        context = model._encode(params, batch.items, KEY)
        return model._training_estimate(params, context, x0, 6, KEY)

    x0 = np.random.default_rng(5).normal(size=(3, 6, 8)).astype(np.float32)
    np.testing.assert_array_equal(estimate(model, x0), estimate(model, 5 * x0))
    assert np.abs(estimate(PLAIN, x0) - estimate(PLAIN, 5 * x0)).max() > 0.01


def test_the_process_keeps_its_scale_whatever_that_of_the_table_and_the_estimates():
    model = dataclasses.replace(PLAIN, objective=Objective(unit_scale=True))
    params, batch = parameters(model), random_batch("history-cached")

    @jax.jit
    def estimate(x0):
        context = model._encode(params, batch.items, KEY)
        return model._training_estimate(params, context, x0, 6, KEY)

    x0 = np.random.default_rng(5).normal(size=(3, 6, 8)).astype(np.float32)
    np.testing.assert_allclose(estimate(x0), estimate(50 * x0), atol=1e-4)
    assert np.abs(estimate(x0) - estimate(-x0)).max() > 0.01
    steps = jax.jit(model.trajectory)(params, right_align(HISTORIES, 6), KEY)
    np.testing.assert_allclose(jnp.mean(jnp.square(steps.x0_hat), axis=-1), 1.0, atol=1e-3)


def test_history_loss_counts_the_history_alone():
    model = dataclasses.replace(PLAIN, objective=Objective(history_loss=0.5))
    params, batch = parameters(model), random_batch("history-cached")
    output = jax.jit(model.loss)(params, batch, KEY)
    expected = output.metrics["ranking_loss"] + 0.5 * output.metrics["history"]
    np.testing.assert_allclose(output.total, expected, rtol=1e-6)


@pytest.mark.parametrize(("form", "self_conditioning"), [("per-prefix", False), ("history-cached", True)])
def test_the_sampler_lowers_for_every_platform(form, self_conditioning):
    model = variant(form, sampler_kind="ddim", num_inference_steps=2, cross_attention="linear")
    model = dataclasses.replace(model, objective=Objective(self_conditioning=self_conditioning))
    params = parameters(model)
    items = jax.ShapeDtypeStruct((jax.export.symbolic_shape("rows")[0], 6), jnp.int32)
    program = jax.export.export(
        jax.jit(lambda params, items, data: model.query(params, items, jax.random.wrap_key_data(data))),
        platforms=("cpu", "cuda", "tpu"),
    )(params, items, jax.ShapeDtypeStruct((2,), jnp.uint32))
    history = right_align(HISTORIES, 6)
    np.testing.assert_allclose(
        program.call(params, history, jax.random.key_data(KEY)), QUERY(model, params, history, KEY), atol=1e-5
    )


def test_protocol():
    assert isinstance(PREFIX, Recommender)
    assert (PREFIX.target_positions, CACHED.target_positions) == ("last", "all")
    assert hash(dataclasses.replace(PREFIX)) == hash(PREFIX)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "cached"}, "form is 'cached'"),
        ({"cross_attention": "full"}, "cross_attention is 'full'"),
        ({"visibility": "hidden"}, "visibility is 'hidden'"),
        ({"form": "history-cached", "target_layers": 0}, "target_layers must be at least 1"),
        ({"objective": Objective(history_loss=1.0)}, "history_loss needs form='history-cached'"),
        ({"start_from_history": False}, "start_from_history=False needs form='history-cached'"),
        ({"target_layers": 2}, "target_layers is 2, and needs form='history-cached'"),
        ({"token_queries": True, "cross_attention": "none"}, "token_queries=True needs a cross_attention"),
        ({"token_queries": True, "form": "history-cached"}, "token_queries=True is of form='per-prefix'"),
        ({"eta": -1.0}, "eta is -1.0"),
        ({"width": 6}, "width 6 is not divisible by num_heads 4"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        DiffuRecSysRecommender(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "score"}, "prediction is 'score'"),
        ({"prediction": "noise"}, "prediction is 'noise'"),
        ({"target_dropout": 1.5}, "target_dropout is 1.5"),
        ({"own_estimate": -0.1}, "own_estimate is -0.1"),
        ({"noise_power": -1.0}, "noise_power is -1.0"),
        ({"history_loss": float("nan")}, "history_loss is nan"),
    ],
)
def test_objective_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        Objective(**changes)
