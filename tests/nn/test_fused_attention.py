"""Fused dot-product attention: equal to the explicit one in values, gradients and parameters."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.export import _for_any_platform
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.nn import attention
from jaxrec.nn.attention import DotProduct, MultiHeadAttention, attention_mask, fused_mix

ITEMS = np.array([[0, 0, 3, 5, 2, 9], [4, 1, 1, 7, 8, 2], [0, 0, 0, 0, 0, 0]], np.int32)
HIDDEN = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)


def layer(*, fused: bool, dropout_rate: float = 0.0, dtype=jnp.float32) -> MultiHeadAttention:
    return MultiHeadAttention(DotProduct(fused=fused), num_heads=2, dropout_rate=dropout_rate, dtype=dtype)


@pytest.mark.parametrize("causal", [True, False])
def test_equal_to_the_explicit_one_in_values_and_gradients(causal):
    mask = attention_mask(ITEMS, causal=causal)
    params = layer(fused=False).init(jax.random.key(0), HIDDEN, HIDDEN, mask, train=False)
    jax.tree.map(
        np.testing.assert_array_equal,
        params,
        layer(fused=True).init(jax.random.key(0), HIDDEN, HIDDEN, mask, train=False),
    )

    def loss(params, hidden, fused):
        mixed, penalties = layer(fused=fused).apply(params, hidden, hidden, mask, train=True)
        assert not penalties
        return jnp.sum(jnp.sin(3.0 * mixed)), mixed

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), static_argnums=2)
    (_, expected), expected_gradients = gradient(params, HIDDEN, False)
    (_, found), found_gradients = gradient(params, HIDDEN, True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found_gradients,
        expected_gradients,
    )
    bias = params["params"]["output"]["bias"]
    np.testing.assert_array_equal(found[2], np.broadcast_to(bias, found[2].shape))  # nothing to attend to


@pytest.mark.parametrize(
    ("module", "train", "mutable", "expected"),
    [
        (layer(fused=True), True, False, 1),
        (layer(fused=True, dropout_rate=0.5), False, False, 1),
        (layer(fused=True, dropout_rate=0.5), True, False, 0),
        (layer(fused=True), False, ["intermediates"], 0),
        (layer(fused=False), True, False, 0),
    ],
)
def test_weights_are_made_where_they_are_wanted(module, train, mutable, expected, monkeypatch):
    mask = attention_mask(ITEMS, causal=True)
    params = layer(fused=False).init(jax.random.key(0), HIDDEN, HIDDEN, mask, train=False)
    calls = []
    monkeypatch.setattr(attention, "fused_mix", lambda *given: (calls.append(given), fused_mix(*given))[1])
    rngs = {"dropout": jax.random.key(1)}
    module.apply(params, HIDDEN, HIDDEN, mask, train=train, mutable=mutable, rngs=rngs)
    assert len(calls) == expected


def test_half_precision_is_close():
    mask = attention_mask(ITEMS, causal=True)
    params = layer(fused=False).init(jax.random.key(0), HIDDEN, HIDDEN, mask, train=False)
    results = [
        layer(fused=fused, dtype=jnp.bfloat16).apply(params, HIDDEN, HIDDEN, mask, train=False)[0]
        for fused in (False, True)
    ]
    np.testing.assert_allclose(*(np.asarray(one, np.float32) for one in results), atol=0.03)


H200 = SimpleNamespace(device_kind="NVIDIA H200", compute_capability="9.0")


def test_a_recommender_ranks_alike():
    plain = EncoderRecommender(num_items=9, max_length=6, width=8, num_layers=2, num_heads=2)
    fused = dataclasses.replace(plain, attention=DotProduct(fused=True))
    params = plain.init(jax.random.key(0))
    queries = [jax.jit(model.query)(params, ITEMS, jax.random.key(1)) for model in (plain, fused)]
    np.testing.assert_allclose(*queries, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("device", "dtype", "length", "channels", "taken"),
    [
        (H200, jnp.bfloat16, 200, 64, True),
        (SimpleNamespace(device_kind="cpu"), jnp.bfloat16, 200, 64, False),
        (SimpleNamespace(device_kind="NVIDIA T4", compute_capability="7.5"), jnp.bfloat16, 200, 64, False),
        (H200, jnp.float32, 200, 64, False),
        (H200, jnp.bfloat16, 75, 64, False),
        (H200, jnp.bfloat16, 200, 4, False),
        (H200, jnp.bfloat16, 200, 256, False),
    ],
)
def test_flash_attention_is_taken_where_it_has_a_kernel(device, dtype, length, channels, taken, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [device])
    part = jax.ShapeDtypeStruct((2, length, 2, channels), dtype)
    assert attention._flash_attention_takes(part, part) == taken


def test_an_export_for_all_platforms_is_not_fused():
    fused = EncoderRecommender(attention=DotProduct(fused=True), num_heads=4)
    assert _for_any_platform(fused) == dataclasses.replace(fused, attention=DotProduct())
