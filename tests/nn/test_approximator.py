"""Both approximators against plain numpy; masks, causality and options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_denoising import as_numpy, cross_attention, prefix_approximator, target_approximator

from jaxrec.nn.approximator import PrefixApproximator
from jaxrec.nn.attention import attention_mask
from jaxrec.nn.cross_attention import CrossAttention
from jaxrec.nn.target_approximator import TargetApproximator

KEY = jax.random.key(0)
SIZES = {"num_steps": 8, "width": 8, "num_layers": 2, "num_heads": 2, "hidden_width": 16}
ITEMS = jnp.array([[0, 0, 3, 1, 2], [4, 1, 5, 2, 6], [0, 0, 0, 0, 7]])


def draw(index, *shape):
    return np.random.default_rng(index).normal(size=shape).astype(np.float32)


def shaken(params):
    """Parameters away from their initial zeros and ones."""
    leaves, tree = jax.tree.flatten(params)
    return tree.unflatten(
        [np.asarray(leaf) + 0.3 * draw(100 + i, *leaf.shape) for i, leaf in enumerate(leaves)]
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def run_jitted(model, last_only, params, history, items, x_t, t, normal, previous):
    def call(module):
        if isinstance(model, PrefixApproximator):
            context = module.prepare(history, (items != 0)[:, None, None, :])
        else:
            context = module.prepare(history, attention_mask(items, causal=True), last_only=last_only)
        return module(context, x_t, t, normal, previous, train=False)

    if params is None:
        return model.init(KEY, method=call)["params"]
    return model.apply({"params": params}, method=call)


def run(model, params, history, items, x_t, t, normal, previous=None, last_only=False):
    """The estimates, or fresh parameters where ``params`` is ``None``."""
    return run_jitted(model, last_only, params, history, items, x_t, t, normal, previous)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cross", "visibility", "token_queries"),
    [
        ("none", "uncertain", False),
        ("softmax", "uncertain", False),
        ("linear", "uncertain", False),
        ("softmax", "fixed", False),
        ("softmax", "uncertain", True),
        ("linear", "fixed", True),
    ],
)
def test_prefix_approximator_against_numpy(cross, visibility, token_queries):
    model = PrefixApproximator(
        **SIZES, cross_attention=cross, visibility=visibility, token_queries=token_queries, scale=0.3
    )
    history, x_t, normal, t = draw(1, 3, 5, 8), draw(2, 3, 1, 8), draw(3, 3, 5, 8), jnp.array([[0], [3], [7]])
    params = shaken(run(model, None, history, ITEMS, x_t, t, normal))
    ours = run(model, params, history, ITEMS, x_t, t, normal)
    assert ours.shape == (3, 1, 8)
    if visibility == "fixed":
        normal = np.zeros_like(normal)
    for row, length in enumerate([3, 5, 1]):
        theirs = prefix_approximator(
            as_numpy(params),
            *(np.asarray(history[row, -length:], np.float64), np.asarray(x_t[row, 0], np.float64)),
            *(int(t[row, 0]), np.asarray(normal[row, -length:], np.float64)),
            num_steps=8,
            heads=2,
            scale=0.3,
            cross=cross,
            token_queries=token_queries,
        )
        np.testing.assert_allclose(ours[row, 0], theirs, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cross", ["none", "softmax", "linear"])
def test_target_approximator_against_numpy(cross):
    """All positions at once are each what one prefix gives, and the last is what inference gives."""
    model = TargetApproximator(**SIZES, cross_attention=cross, scale=0.3)
    history, x_t, normal = draw(1, 3, 5, 8), draw(2, 3, 5, 8), draw(3, 3, 5, 8)
    t = jnp.array([[0, 1, 2, 3, 4], [5, 6, 7, 0, 1], [1, 2, 3, 4, 5]])
    params = shaken(run(model, None, history, ITEMS, x_t, t, normal))
    ours = run(model, params, history, ITEMS, x_t, t, normal)
    last = run(model, params, history, ITEMS, x_t[:, -1:], t[:, -1:], normal[:, -1:], last_only=True)
    np.testing.assert_allclose(last[:, 0], ours[:, -1], atol=2e-5)
    for row, length in enumerate([3, 5, 1]):
        for place in range(5 - length, 5):
            theirs = target_approximator(
                as_numpy(params),
                *(np.asarray(history[row, 5 - length : place + 1], np.float64), x_t[row, place]),
                *(int(t[row, place]), normal[row, place]),
                num_steps=8,
                heads=2,
                scale=0.3,
                cross=cross,
            )
            np.testing.assert_allclose(ours[row, place], theirs, atol=2e-5)


@pytest.mark.parametrize("cross", ["softmax", "linear"])
def test_target_approximator_is_causal_by_gradient(cross):
    model = TargetApproximator(**SIZES, cross_attention=cross, scale=0.3)
    items = ITEMS[1:2]
    arguments = (draw(2, 1, 5, 8), jnp.int32(4), draw(3, 1, 5, 8))
    params = shaken(run(model, None, draw(1, 1, 5, 8), items, *arguments))

    def jacobian(history):
        return run(model, params, history, items, *arguments)[0]

    gradient = jax.jacobian(jacobian)(draw(1, 1, 5, 8))[:, :, 0]  # [L, D, L, D]
    size = np.asarray(jnp.abs(gradient).max((1, 3)))
    assert np.all(size[np.triu_indices(5, 1)] == 0.0)
    assert np.all(size[np.tril_indices(5)] > 0.0)


@pytest.mark.parametrize("form", ["softmax", "linear"])
def test_cross_attention_against_numpy_and_with_nothing_to_read(form):
    model = CrossAttention(width=8, num_heads=2, form=form)
    tokens, history = draw(1, 2, 3, 8), draw(2, 2, 4, 8)
    real = jnp.array([[False, True, True, True], [False] * 4])[:, None, None]

    def call(module):
        return module(tokens, module.memory(history, real), train=False)

    params = shaken(model.init(KEY, method=call)["params"])
    ours = model.apply({"params": params}, method=call)
    reference = cross_attention(
        as_numpy(params), np.asarray(tokens[0]), np.asarray(history[0, 1:]), heads=2, form=form
    )
    np.testing.assert_allclose(ours[0], reference, atol=1e-5)
    np.testing.assert_allclose(ours[1], np.broadcast_to(params["output"]["bias"], (3, 8)), atol=1e-6)


def test_linear_cross_attention_stays_finite_where_keys_lie_far_apart():
    """Each query has keys of its own to read, and those of the first lie 80 below the newest one's."""
    model = CrossAttention(width=8, num_heads=2, form="linear")
    tokens, mask = draw(1, 1, 3, 8), attention_mask(jnp.array([[1, 2, 3]]), causal=True)

    def call(module, history):
        return module(tokens, module.memory(history, mask), train=False)

    params = model.init(KEY, jnp.ones((1, 3, 8)), method=call)["params"]
    params["key_value"]["kernel"] = jnp.ones((8, 16))
    history = jnp.array([-5.0, -5.0, 5.0])[None, :, None] * jnp.ones(8)
    for result in jax.jit(
        jax.value_and_grad(lambda history: jnp.sum(model.apply({"params": params}, history, method=call)))
    )(history):
        assert np.all(np.isfinite(result))


@pytest.mark.parametrize(
    ("model_class", "visibility"),
    [
        (PrefixApproximator, "fixed"),
        (PrefixApproximator, "learned"),
        (TargetApproximator, "learned"),
        (TargetApproximator, "uncertain"),
    ],
)
def test_scale_is_what_connects_the_target(model_class, visibility):
    """With scale 0 the estimate does not depend on x_t; with a scale it does, and so says the gradient."""
    count = 1 if model_class is PrefixApproximator else 5
    history, x_t, normal = draw(1, 1, 5, 8), draw(2, 1, count, 8), draw(3, 1, 5, 8)

    @functools.partial(jax.jit, static_argnums=0)
    def size(model, params):
        def channel(x_t):
            return run(model, params, history, ITEMS[1:2], x_t, jnp.int32(3), normal)[0, -1, 0]

        return jnp.abs(jax.grad(channel)(x_t)).max()

    blind = model_class(**SIZES, visibility=visibility, scale=0.0)
    seeing = blind.clone(scale=0.5)
    params = run(blind, None, history, ITEMS[1:2], x_t, jnp.int32(3), normal)
    assert size(blind, params) == 0.0
    if visibility == "learned":
        assert params["signal"]["scale"].shape == (8, 8)
        params["signal"]["scale"] = params["signal"]["scale"].at[3].set(0.5)
    assert size(seeing, params) > 1e-3


@pytest.mark.parametrize("model_class", [PrefixApproximator, TargetApproximator])
def test_self_conditioning_starts_silent_and_can_speak(model_class):
    count = 1 if model_class is PrefixApproximator else 5
    model = model_class(**SIZES, self_conditioning=True)
    arguments = (draw(1, 1, 5, 8), ITEMS[1:2], draw(2, 1, count, 8), jnp.int32(3), draw(3, 1, 5, 8))
    nothing, estimate = jnp.zeros((1, count, 8)), draw(4, 1, count, 8)
    params = run(model, None, *arguments, nothing)
    silent = run(model, params, *arguments, nothing)
    np.testing.assert_array_equal(run(model, params, *arguments, estimate), silent)
    params["estimate"]["kernel"] = jnp.eye(8)
    assert jnp.abs(run(model, params, *arguments, estimate) - silent).max() > 0.1


def test_without_the_history_as_start_only_the_signal_enters():
    """No cross-attention and no history start: nothing of the history can reach the estimate."""
    model = TargetApproximator(**SIZES, cross_attention="none", start_from_history=False)
    arguments = (ITEMS[1:2], draw(2, 1, 5, 8), jnp.int32(3), draw(3, 1, 5, 8))
    params = run(model, None, draw(1, 1, 5, 8), *arguments)
    one, other = (run(model, params, draw(i, 1, 5, 8), *arguments) for i in (1, 7))
    np.testing.assert_array_equal(one, other)


def silenced(params):
    """Sub-layers that add nothing: the residual stream goes straight to the last norm."""

    def silence(path, leaf):
        return (
            np.zeros_like(leaf) if path[-2].key in ("output", "contract") and "block" in path[0].key else leaf
        )

    return jax.tree_util.tree_map_with_path(silence, params)


@pytest.mark.parametrize(("quiet", "scale"), [(True, 0.001), (False, 0.03)])
def test_bfloat16_keeps_what_another_target_changes(quiet, scale):
    """The residual stream loses nothing of a signal of 0.001; what sub-layers read of it is rounded."""
    history, normal, t = draw(1, 2, 5, 8), draw(3, 2, 5, 8), jnp.int32(1)
    full = PrefixApproximator(**SIZES, cross_attention="softmax", scale=scale)
    params = run(full, None, history, ITEMS[:2], draw(2, 2, 1, 8), t, normal)
    if quiet:
        params = silenced(params)

    def two_targets(model):
        return [run(model, params, history, ITEMS[:2], draw(i, 2, 1, 8), t, normal) for i in (2, 4)]

    full, half = two_targets(full), two_targets(full.clone(dtype=jnp.bfloat16))
    assert half[0].dtype == jnp.float32
    np.testing.assert_allclose(full[0], half[0], atol=0.06)
    change, rounded = full[1] - full[0], half[1] - half[0]
    assert jnp.abs(change).max() > 1e-3
    if quiet:
        np.testing.assert_allclose(rounded, change, atol=1e-6)
    assert np.corrcoef(np.ravel(change), np.ravel(rounded))[0, 1] > 0.98


def test_unknown_form():
    model = CrossAttention(width=8, num_heads=2, form="cubic")
    with pytest.raises(ValueError, match="cubic"):
        model.init(KEY, method=lambda m: m.memory(draw(1, 1, 2, 8), jnp.ones((1, 1, 1, 2), bool)))
