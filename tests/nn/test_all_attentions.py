"""What every attention provider must hold to, one file for all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.diffusion import CosineSchedule, GaussianProcess, Sampler
from jaxrec.nn.attention import DotProduct, MultiHeadAttention, attention_mask
from jaxrec.nn.diffusion_attention import DiffusionAttention
from jaxrec.nn.encoder import TransformerEncoder
from jaxrec.nn.lags import configure
from jaxrec.nn.refinement import Refined
from jaxrec.nn.stochastic import DistributionalAttention, Gaussian, WassersteinScores
from jaxrec.nn.vae_attention import VaeAttention

HEADS, WIDTH, LENGTH, MAX_LENGTH = 2, 8, 6, 9
SHORT_DDPM = Sampler(GaussianProcess(CosineSchedule(4)), kind="ddpm")
WASSERSTEIN = WassersteinScores()

PROVIDERS = {
    "dot": DotProduct(),
    "wasserstein": WASSERSTEIN,
    "simple": Refined(mechanism="simple"),
    "simple-places": Refined(mechanism="simple", coordinates="places"),
    "value-weighted": Refined(mechanism="value_weighted"),
    "value-weighted-places": Refined(mechanism="value_weighted", coordinates="places"),
    "additive": Refined(mechanism="additive"),
    "additive-places": Refined(mechanism="additive", coordinates="places"),
    "simple-wasserstein": Refined(base=WASSERSTEIN, mechanism="simple"),
    "value-weighted-wasserstein": Refined(base=WASSERSTEIN, mechanism="value_weighted"),
    "additive-wasserstein": Refined(base=WASSERSTEIN, mechanism="additive"),
    "stochastic": Refined(base=WASSERSTEIN, mechanism="stochastic"),
    "stochastic-places": Refined(base=WASSERSTEIN, mechanism="stochastic", coordinates="places"),
    "vae": VaeAttention(latent_width=3),
    "vae-sampled": VaeAttention(latent_width=3, sample_at_inference=True, free_bits=0.01),
    "vae-content": VaeAttention(latent_width=3, content_width=2),
    "vae-global": VaeAttention(latent_width=3, form="global"),
    "vae-global-content": VaeAttention(latent_width=3, form="global", content_width=2),
    "diffusion": DiffusionAttention(),
    "diffusion-denoising": DiffusionAttention(denoising=True),
    "diffusion-ddpm": DiffusionAttention(sampler=SHORT_DDPM, reference="blank", denoising=True),
    "refined-vae": Refined(base=VaeAttention(latent_width=3)),
}
GLOBAL = ["vae-global", "vae-global-content"]
CAUSAL = [name for name in PROVIDERS if name not in GLOBAL]
DRAWING = [name for name in CAUSAL if any(word in name for word in ("vae", "diffusion"))]
ANY_MASK = ["dot", "wasserstein", "simple-places", "additive-places", "stochastic-places", *GLOBAL]
WITHOUT_EFFECT = {"key/bias", "scores/key/bias"}
"""Adding one number to all scores of a row changes nothing: these gradients are 0 in exact arithmetic."""

HIDDEN = jax.random.normal(jax.random.key(7), (3, LENGTH, WIDTH))
ITEMS = jnp.array([[0, 0, 3, 1, 4, 1], [0] * 6, [5, 9, 2, 6, 5, 3]], jnp.int32)


def over_gaussians(provider):
    return isinstance(provider, WassersteinScores) or isinstance(
        getattr(provider, "base", None), type(WASSERSTEIN)
    )


def make_inputs(provider, hidden):
    """Block inputs as the provider takes them, from ``[B, L, D]``."""
    return Gaussian(hidden, jax.nn.elu(jnp.sin(5 * hidden)) + 1) if over_gaussians(provider) else hidden


def streams(seed=0):
    return {
        name: jax.random.fold_in(jax.random.key(seed), i) for i, name in enumerate(("latent", "diffusion"))
    }


def draw_parameters(initialise):
    """Parameters of the shapes that ``initialise()`` would give, drawn by numpy (compiling nothing)."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(initialise)["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)


@functools.cache
def prepare(name):
    """The module and its parameters, every leaf away from its initial value."""
    module = configure(PROVIDERS[name], num_heads=HEADS, max_length=MAX_LENGTH)
    inputs = make_inputs(PROVIDERS[name], HIDDEN)
    mask = attention_mask(ITEMS, causal=True)
    rngs = {"params": jax.random.key(1), **streams()}
    return module, draw_parameters(lambda: module.init(rngs, inputs, inputs, mask, train=False))


@functools.partial(jax.jit, static_argnames=("module", "train", "causal", "rows"))
def apply(module, params, hidden, items, seed, train, causal, rows):
    key = make_inputs(module, hidden)
    mask = attention_mask(items, causal=causal)
    query = key
    if rows is not None:
        query, mask = jax.tree.map(lambda stream: stream[:, -rows:], key), mask[:, :, -rows:]
    return module.apply({"params": params}, query, key, mask, train=train, rngs=streams(seed))


def attend(name, hidden, items, seed=0, *, train=False, dtype=jnp.float32, causal=True, rows=None):
    """The provider's output for ``hidden`` ``[B, L, D]``; ``rows`` asks for the newest rows only."""
    module, params = prepare(name)
    return apply(module.clone(dtype=dtype), params, hidden, items, seed, train, causal, rows)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", PROVIDERS)
def test_rows_are_distributions_over_allowed_keys(name, train):
    output = attend(name, HIDDEN, ITEMS, train=train)
    weights, mask = np.asarray(output.weights), np.asarray(attention_mask(ITEMS, causal=True))
    assert weights.shape == (3, HEADS, LENGTH, LENGTH)
    assert weights.dtype == np.float32
    assert output.logits.shape == weights.shape
    assert np.all(weights >= 0)
    assert np.all(weights[~np.broadcast_to(mask, weights.shape)] == 0)
    sums = np.broadcast_to(mask.any(-1).astype(np.float32), weights.shape[:3])
    np.testing.assert_allclose(weights.sum(-1), sums, atol=1e-6)
    assert np.all(np.isfinite(output.logits))
    for term in output.penalties.values():
        assert term.shape == (3, LENGTH)
        assert np.all(np.isfinite(term))
        assert np.all(np.asarray(term)[np.asarray(ITEMS) == 0] == 0)


@pytest.mark.parametrize("name", ANY_MASK)
def test_masks_that_are_not_causal(name):
    weights = np.asarray(attend(name, HIDDEN, ITEMS, causal=False).weights)
    real = np.asarray(ITEMS) != 0
    np.testing.assert_allclose(weights.sum(-1), np.broadcast_to(real[:, None], weights.shape[:3]), atol=1e-6)
    assert weights[2, 0, 0, -1] > 0


def dependence(name, train):
    """How much row i depends on the input of place j: ``[L, L]``, over heads, keys and channels."""

    def rows(hidden):
        return attend(name, hidden, ITEMS[2:], train=train).weights[0]

    jacobian = np.asarray(jax.jit(jax.jacrev(rows))(HIDDEN[2:]))[:, :, :, 0]
    assert np.all(np.isfinite(jacobian))
    return np.abs(jacobian).max(axis=(0, 2, 4))


@pytest.mark.parametrize(("name", "train"), [(n, False) for n in CAUSAL] + [(n, True) for n in DRAWING])
def test_rows_do_not_depend_on_later_items(name, train):
    found = dependence(name, train)
    assert np.all(found[np.triu_indices(LENGTH, 1)] == 0)
    assert np.all(found[-1] > 0)


@pytest.mark.parametrize("name", GLOBAL)
def test_global_form_sees_everything_and_says_so(name):
    found = dependence(name, train=False)
    assert np.all(found[1:, -1] > 0)
    assert PROVIDERS[name].target_positions == "last"
    assert Refined(base=PROVIDERS[name]).target_positions == "last"


@pytest.mark.parametrize("name", PROVIDERS)
def test_padding_and_bucket_change_nothing(name):
    expected = np.asarray(attend(name, HIDDEN, ITEMS, seed=3).weights)
    padding = MAX_LENGTH - LENGTH
    rubbish = 100 * jax.random.normal(jax.random.key(8), (3, padding, WIDTH))
    hidden = jnp.concatenate([rubbish, HIDDEN], axis=1)
    weights = attend(name, hidden, jnp.pad(ITEMS, ((0, 0), (padding, 0))), seed=3).weights
    np.testing.assert_allclose(weights[..., padding:, padding:], expected, atol=2e-6)


@pytest.mark.parametrize("name", [n for n, p in PROVIDERS.items() if getattr(p, "last_query", False)])
def test_newest_row_alone_is_the_same(name):
    whole = attend(name, HIDDEN, ITEMS, seed=4)
    last = attend(name, HIDDEN, ITEMS, seed=4, rows=1)
    np.testing.assert_allclose(last.weights, whole.weights[:, :, -1:], atol=2e-6)
    for term_name, term in last.penalties.items():
        np.testing.assert_allclose(term, whole.penalties[term_name][:, -1:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PROVIDERS)
def test_gradients_are_finite_and_reach_every_leaf(name):
    module, params = prepare(name)
    direction = jax.random.normal(jax.random.key(5), (3, HEADS, LENGTH, LENGTH))
    inputs, mask = make_inputs(PROVIDERS[name], HIDDEN), attention_mask(ITEMS, causal=True)

    @jax.jit
    @jax.grad
    def gradient(params):
        output = module.apply({"params": params}, inputs, inputs, mask, train=True, rngs=streams())
        return jnp.sum(output.weights * direction) + sum(jnp.sum(term) for term in output.penalties.values())

    for path, leaf in jax.tree.leaves_with_path(gradient(params)):
        leaf_name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.all(np.isfinite(leaf)), leaf_name
        if leaf_name not in WITHOUT_EFFECT:
            assert np.any(np.abs(leaf) > 1e-7), leaf_name


@pytest.mark.parametrize("name", PROVIDERS)
def test_bfloat16_is_close_to_float32(name):
    exact, rough = (attend(name, HIDDEN, ITEMS, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
    assert rough.weights.dtype == jnp.float32
    np.testing.assert_allclose(rough.weights, exact.weights, atol=0.04)
    assert np.any(np.asarray(rough.weights) != np.asarray(exact.weights))


@pytest.mark.parametrize("name", PROVIDERS)
def test_key_decides_and_nothing_else(name):
    first, again, other = (np.asarray(attend(name, HIDDEN, ITEMS, seed).weights) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    draws = getattr(PROVIDERS[name], "stochastic_at_inference", False)
    assert draws == (name == "vae-sampled" or name.startswith("diffusion"))
    assert np.array_equal(first, other) != draws
    trained = [np.asarray(attend(name, HIDDEN, ITEMS, seed, train=True).weights) for seed in (0, 1)]
    assert np.array_equal(*trained) != any(word in name for word in ("vae", "diffusion"))


@pytest.mark.parametrize("name", PROVIDERS)
def test_layers_take_it_as_a_template(name):
    provider = configure(PROVIDERS[name], max_length=MAX_LENGTH)
    assert hash(provider) == hash(configure(PROVIDERS[name], max_length=MAX_LENGTH))
    layer_class = DistributionalAttention if over_gaussians(provider) else MultiHeadAttention
    layer = layer_class(provider, HEADS)
    inputs, mask = make_inputs(provider, HIDDEN), attention_mask(ITEMS, causal=True)
    rngs = {"params": jax.random.key(0), **streams()}
    (mixed, penalties), variables = jax.eval_shape(
        lambda: layer.init_with_output(rngs, inputs, inputs, mask, train=False)
    )
    assert set(variables["params"]["scores"]) == set(prepare(name)[1])
    assert set(penalties) == set(attend(name, HIDDEN, ITEMS).penalties)
    assert all(stream.shape == HIDDEN.shape for stream in jax.tree.leaves(mixed))


@pytest.mark.parametrize("name", ["additive", "vae", "diffusion"])
def test_encoder_with_last_only_gives_the_last_position(name):
    encoder = TransformerEncoder(2, HEADS, WIDTH, configure(PROVIDERS[name], max_length=MAX_LENGTH))
    mask = attention_mask(ITEMS, causal=True)

    rngs = {"params": jax.random.key(0), **streams()}
    params = draw_parameters(lambda: encoder.init(rngs, HIDDEN, mask, train=False))

    @jax.jit
    def encode():
        both = (
            encoder.apply({"params": params}, HIDDEN, mask, train=False, last_only=last_only, rngs=rngs)[0]
            for last_only in (False, True)
        )
        return tuple(both)

    whole, last = encode()

    np.testing.assert_allclose(last, whole[:, -1:], atol=2e-5)


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name not in ("dot", "wasserstein")])
def test_sequences_beyond_the_table_are_refused(name):
    hidden, items = jnp.ones((1, MAX_LENGTH + 1, WIDTH)), jnp.ones((1, MAX_LENGTH + 1), jnp.int32)
    with pytest.raises(ValueError, match="made for 9 items, got a sequence of 10"):
        attend(name, hidden, items)
