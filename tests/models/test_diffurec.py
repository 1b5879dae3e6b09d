"""DiffuRec: the whole reverse process against plain numpy, the loss, training, export."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference_denoising import as_numpy, norm, prefix_approximator, reverse

from jaxrec.batch import SequenceBatch, right_align, row_keys
from jaxrec.devices.random_bits import counters, hash_normal
from jaxrec.diffusion import TruncatedLinearSchedule, draw_normal, fold_key, split_key
from jaxrec.models.diffurec import DiffuRecRecommender

KEY = jax.random.key(0)
SMALL = DiffuRecRecommender(
    num_items=20,
    max_length=8,
    width=8,
    num_layers=2,
    num_heads=2,
    schedule=TruncatedLinearSchedule(6),
    uncertainty=0.3,
)
HISTORIES = [[3, 1, 2], [4, 1, 5, 2, 6, 9, 20, 1], [7], []]
QUERY = jax.jit(DiffuRecRecommender.query, static_argnums=0)


def parameters(model):
    """Random parameters of the right names and shapes, none of them at an initial 0 or 1."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, KEY)
    return jax.tree.map(lambda leaf: rng.normal(0.3, 0.4, leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("unit_scale", [False, True])
def test_query_against_numpy(unit_scale):
    """DiffuRec's method, transcribed row by row without padding; only the random draws are shared."""
    params = parameters(SMALL)
    items = right_align(HISTORIES, 8)
    ours = QUERY(dataclasses.replace(SMALL, unit_scale=unit_scale), params, items, KEY)
    p = as_numpy(params)
    sample_keys, signal_keys = split_key(row_keys(KEY, items))
    start_keys, noise_keys = split_key(sample_keys)
    for row, history in enumerate(HISTORIES[:3]):
        e = norm(p["history_input"]["norm"], p["item_embedding"]["table"][history])

        def denoise(x, t, row=row, e=e):
            places = counters((8, 8))[::-1]
            normal = np.asarray(hash_normal(fold_key(signal_keys[row], t), places))[-len(e) :]
            return prefix_approximator(p["approximator"], e, x, t, normal, num_steps=6, heads=2, scale=0.3)

        def step_noise(t, row=row):
            return np.asarray(draw_normal(fold_key(noise_keys[row], t), (8,)))

        start = draw_normal(start_keys[row], (8,))
        theirs = reverse(denoise, start, step_noise, 6, unit_scale=unit_scale)
        np.testing.assert_allclose(ours[row], theirs, atol=5e-5)
    assert np.all(np.isfinite(ours[3]))


def make_batch(histories, length):
    """The last item of each history is its target."""
    items = right_align([history[:-1] for history in histories], length)
    targets = np.zeros_like(items)
    targets[:, -1] = [history[-1] for history in histories]
    return SequenceBatch(items, targets, (targets > 0).astype(np.float32))


@jax.jit
def loss_and_gradient(params, batch, key):
    def mean_loss(params):
        output = SMALL.loss(params, batch, key)
        return output.total / output.weight, output

    return jax.value_and_grad(mean_loss, has_aux=True)(params)


def test_loss_and_gradient():
    batch = make_batch([[3, 1, 2], [4, 1, 5, 2, 6], [7, 8]], 8)
    params = parameters(SMALL)
    (mean, output), gradient = loss_and_gradient(params, batch, KEY)
    assert output.weight == 3.0
    np.testing.assert_allclose(output.total / 3.0, mean, rtol=1e-6)
    np.testing.assert_allclose(output.metrics["ranking_loss"], output.total)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    table = np.asarray(gradient["item_embedding"]["table"])
    assert np.all(table[0] == 0.0), "padding takes no part in attention or softmax"
    assert np.all(table[21:] == 0.0), "nor do the rows that fill the table up"
    assert np.all(np.abs(table[1:21]).max(1) > 0)


def test_rows_of_weight_zero_and_other_columns_do_not_count():
    assert SMALL.target_positions == "last"
    batch = make_batch([[3, 1, 2], [4, 1, 5, 2, 6], [7, 8]], 8)
    params = parameters(SMALL)
    weights = np.array([[0] * 8, [0] * 7 + [1], [0] * 8], np.float32)
    output = loss_and_gradient(params, SequenceBatch(batch.items, batch.targets, weights), KEY)[0][1]
    assert output.weight == 1.0
    earlier = SequenceBatch(batch.items, batch.targets.copy(), batch.weights.copy())
    earlier.targets[:, :-1], earlier.weights[:, :-1] = 9, 1.0
    same = loss_and_gradient(params, earlier, KEY)[0][1]
    np.testing.assert_array_equal(same.total, loss_and_gradient(params, batch, KEY)[0][1].total)


@pytest.mark.slow
def test_learns_a_rule():
    """The next item is the last one plus one, whatever came before: learned to near certainty."""
    model = dataclasses.replace(SMALL, width=32, num_layers=1, uncertainty=0.001, dropout_rate=0.0)
    rng = np.random.default_rng(1)
    optimizer = optax.adam(5e-3)
    params = jax.jit(model.init)(KEY)
    state = optimizer.init(params)

    @jax.jit
    def train(params, state, batch, key):
        gradient = jax.grad(lambda p: model.loss(p, batch, key).total / 64)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    for step in range(150):
        last = rng.integers(1, 20, 64)
        histories = [[*rng.integers(1, 21, 3), item, item + 1] for item in last]
        params, state = train(params, state, make_batch(histories, 4), jax.random.fold_in(KEY, step))
    items = right_align([[5, 2, 17, item] for item in range(1, 20)], 4)
    scores = np.asarray(QUERY(model, params, items, KEY) @ model.items(params).T)[:, 1:21]
    assert (scores.argmax(1) + 1 == np.arange(2, 21)).mean() > 0.9


def test_dropout_of_everything_leaves_the_biases_of_norms():
    params, items = parameters(SMALL), right_align(HISTORIES[:3], 8)
    x0 = np.ones((3, 1, 8), np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def train(model):
        context = model._encode(params, items, KEY)
        return context.history, model._training_estimate(params, context, x0, 8, KEY)

    history, _ = train(dataclasses.replace(SMALL, input_dropout_rate=1.0))
    bias = params["history_input"]["norm"]["bias"]
    np.testing.assert_allclose(history, np.broadcast_to(bias, history.shape), atol=1e-6)
    _, estimate = train(dataclasses.replace(SMALL, dropout_rate=1.0))
    bias = params["approximator"]["norm"]["bias"]
    np.testing.assert_allclose(estimate, np.broadcast_to(bias, estimate.shape), atol=1e-6)


def test_trajectory_ends_in_the_query():
    params = parameters(SMALL)
    items = right_align(HISTORIES, 8)
    trajectory = jax.jit(DiffuRecRecommender.trajectory, static_argnums=0)(SMALL, params, items, KEY)
    assert trajectory.x_t.shape == (6, 4, 8)
    np.testing.assert_allclose(trajectory.x0_hat[-1], QUERY(SMALL, params, items, KEY), atol=1e-5)


def test_the_sampler_lowers_for_every_platform():
    params = parameters(SMALL)
    exported = jax.export.export(
        jax.jit(lambda params, items, data: SMALL.query(params, items, jax.random.wrap_key_data(data))),
        platforms=("cpu", "cuda", "tpu"),
    )
    rows = jax.export.symbolic_shape("rows")[0]
    items = jax.ShapeDtypeStruct((rows, 8), jnp.int32)
    program = exported(params, items, jax.ShapeDtypeStruct((2,), jnp.uint32))
    assert program.platforms == ("cpu", "cuda", "tpu")
    history = right_align(HISTORIES, 8)
    np.testing.assert_allclose(
        program.call(params, history, jax.random.key_data(KEY)), QUERY(SMALL, params, history, KEY), atol=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 10, "num_heads": 4}, "width 10 is not divisible by num_heads 4"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"num_inference_steps": 33}, "num_inference_steps.* between 1 and the 32"),
        ({"uncertainty": -0.1}, "uncertainty must be finite and not negative, got -0.1"),
        ({"uncertainty": float("nan")}, "uncertainty must be finite and not negative, got nan"),
        ({"embedding_stddev": 0.0}, "embedding_stddev must be above 0, got 0.0"),
        ({"input_dropout_rate": 1.5}, "input_dropout_rate must lie between 0 and 1, got 1.5"),
        ({"sampler_kind": "euler"}, "kind is 'euler'"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        DiffuRecRecommender(num_items=5, **changes)
