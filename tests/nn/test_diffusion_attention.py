"""D-GenAtt: its sampler is the library's, its training step is one corruption, its map one estimate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.diffusion import (
    CosineSchedule,
    GaussianProcess,
    Sampler,
    TruncatedLinearSchedule,
    draw_normal,
    split_key,
)
from jaxrec.nn.attention import attention_mask, masked_softmax
from jaxrec.nn.diffusion_attention import DiffusionAttention, RowDenoiser
from jaxrec.nn.lags import keys_to_profiles, place_keys, profiles_to_keys
from jaxrec.nn.prefix import PrefixSummary

HEADS, WIDTH, LENGTH, MAX_LENGTH = 2, 8, 5, 7
ITEMS = jnp.array([[0, 4, 2, 7, 1], [3, 1, 4, 1, 5]], jnp.int32)
HIDDEN = jax.random.normal(jax.random.key(0), (2, LENGTH, WIDTH))
MASK = attention_mask(ITEMS, causal=True)
PROCESS = GaussianProcess(CosineSchedule(num_steps=4))
SAMPLER = Sampler(PROCESS, kind="ddim")


def make(**fields):
    module = DiffusionAttention(**{"sampler": SAMPLER, "max_length": MAX_LENGTH, "num_heads": HEADS} | fields)
    rngs = {"params": jax.random.key(1), "diffusion": jax.random.key(2)}
    return module, module.init(rngs, HIDDEN, HIDDEN, MASK, train=False)["params"]


def run(module, params, train=False, seed=0):
    rngs = {"diffusion": jax.random.key(seed)}
    return module.apply({"params": params}, HIDDEN, HIDDEN, MASK, train=train, rngs=rngs)


def constant_denoiser(params, rows):
    """A denoiser that answers ``rows`` ``[H, max_length]`` whatever it is given."""
    denoiser = jax.tree.map(jnp.zeros_like, params["denoiser"])
    denoiser["hidden"]["bias"] = jnp.full(WIDTH, 10.0)
    denoiser["writer"] = jnp.broadcast_to(rows, (WIDTH, *rows.shape)) / (10.0 * WIDTH)
    return params | {"denoiser": denoiser}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddim", "ddpm"])
@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_reverse_process_ends_at_the_estimate(kind, num_steps):
    module, params = make(sampler=Sampler(PROCESS, kind=kind, num_steps=num_steps))
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(HEADS, MAX_LENGTH)), jnp.float32)
    output = run(module, constant_denoiser(params, rows))
    profiles = (rows + params["lag_bias"])[None, :, None, -LENGTH:]
    expected = profiles_to_keys(jnp.broadcast_to(profiles, (2, HEADS, LENGTH, LENGTH)))
    np.testing.assert_allclose(output.logits, expected, atol=1e-5)
    np.testing.assert_allclose(output.weights, masked_softmax(expected, MASK), atol=1e-5)


def test_inference_equals_ddim_written_out():
    """Song et al. 2021, eq. 12 with eta 0, step by step, from the draws of the places' keys."""
    module, params = make()
    variables = {"params": params}
    rngs = {"diffusion": jax.random.key(5)}
    key = module.apply(variables, rngs=rngs, method=lambda module: module.make_rng("diffusion"))
    start_keys, _ = split_key(place_keys(key, 2, LENGTH))
    noised = draw_normal(start_keys, (2, LENGTH, HEADS, MAX_LENGTH))[..., -LENGTH:]
    condition = PrefixSummary(WIDTH).apply({"params": params["summary"]}, HIDDEN, ITEMS != 0)
    real_lags = np.asarray(keys_to_profiles(MASK)).swapaxes(1, 2)
    denoiser = RowDenoiser(num_steps=4, max_length=MAX_LENGTH)
    alpha_bars = np.append(PROCESS.schedule.alpha_bars(), 1.0)
    for step in (3, 2, 1, 0):
        seen = jnp.where(real_lags, noised, 0.0)
        clean = denoiser.apply({"params": params["denoiser"]}, seen, jnp.array(step), condition)
        noise = (noised - np.sqrt(alpha_bars[step]) * clean) / np.sqrt(1 - alpha_bars[step])
        noised = np.sqrt(alpha_bars[step - 1]) * clean + np.sqrt(1 - alpha_bars[step - 1]) * noise
    logits = profiles_to_keys(jnp.moveaxis(clean + params["lag_bias"][:, -LENGTH:], 2, 1))
    weights = module.apply(variables, HIDDEN, HIDDEN, MASK, train=False, rngs=rngs).weights
    np.testing.assert_allclose(weights, masked_softmax(logits, MASK), atol=1e-5)


def test_more_steps_and_schedules_change_the_map():
    module, params = make()
    maps = [
        np.asarray(run(module.clone(sampler=sampler), params).weights)
        for sampler in (
            SAMPLER,
            dataclasses.replace(SAMPLER, num_steps=2),
            Sampler(GaussianProcess(TruncatedLinearSchedule(num_steps=4)), kind="ddim"),
            Sampler(PROCESS, kind="ddpm"),
        )
    ]
    for i in range(len(maps)):
        for j in range(i):
            assert np.abs(maps[i] - maps[j]).max() > 1e-5


def test_denoising_penalty_is_the_error_against_the_reference():
    module, params = make(denoising=True, reference="blank")
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(HEADS, MAX_LENGTH)), jnp.float32)
    penalty = run(module, constant_denoiser(params, rows), train=True).penalties["denoising"]
    squares = np.square(np.asarray(rows))[:, ::-1].mean(0)
    expected = [[squares[: max(count, 1)].mean() * (count > 0) for count in counts] for counts in
                ([0, 1, 2, 3, 4], [1, 2, 3, 4, 5])]  # fmt: skip
    np.testing.assert_allclose(penalty, expected, rtol=1e-4)
    module, params = make(denoising=True, reference="self")
    penalty = run(module, constant_denoiser(params, rows), train=True).penalties["denoising"]
    np.testing.assert_allclose(penalty, 0.0, atol=1e-8)
    assert make()[0].denoising is False
    assert run(*make(), train=True).penalties == {}


def test_reference_carries_no_gradient():
    """The first pass of ``self`` is a constant: a denoiser blind to x_t learns the same with either reference."""
    gradients = []
    for reference in ("self", "blank"):
        module, params = make(reference=reference)
        params["denoiser"]["reader"] = jnp.zeros_like(params["denoiser"]["reader"])

        def loss(params, module=module):
            return jnp.sum(jnp.square(run(module, params, train=True).weights))

        gradients.append(jax.jit(jax.grad(loss))(params))
    for path, ours in jax.tree.leaves_with_path(gradients[0]):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name != "denoiser/reader":
            theirs = dict(jax.tree.leaves_with_path(gradients[1]))[path]
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=name)


def test_unknown_reference_is_refused():
    with pytest.raises(ValueError, match="reference is 'noise'"):
        DiffusionAttention(reference="noise")
