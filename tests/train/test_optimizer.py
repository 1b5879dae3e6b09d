"""What decays and what does not, and how."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrec.models.encoder import EncoderRecommender, Penalty
from jaxrec.nn.vae_attention import VaeAttention
from jaxrec.train.optimizer import OptimizerConfig, decayed, make_optimizer

MODEL = EncoderRecommender(
    num_items=9,
    max_length=4,
    width=8,
    num_layers=1,
    attention=VaeAttention(content_width=2),
    penalties=(Penalty("kl", 1.0),),
)


@pytest.mark.parametrize("embeddings", [True, False])
def test_matrices_decay_and_biases_norms_and_scales_do_not(embeddings):
    """Biases of heads (``[H, C]``) and of lags (``[H, L]``) have two axes, as matrices do."""
    params = jax.eval_shape(MODEL.init, jax.random.key(0))
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): decays
        for path, decays in jax.tree.leaves_with_path(decayed(params, embeddings=embeddings))
    }
    for name, decays in found.items():
        last = name.rsplit("/", 1)[-1]
        if last == "table":
            assert decays == embeddings, name
        elif last in ("kernel", "generator"):
            assert decays, name
        elif last in ("bias", "lag_bias", "scale"):
            assert not decays, name
    assert {name.rsplit("/", 1)[-1] for name in found} >= {"table", "kernel", "bias", "lag_bias", "scale"}


@pytest.mark.parametrize(("name", "embeddings"), [("adam", True), ("adam", False), ("adamw", True)])
def test_weight_decay_is_an_l2_term_with_adam_and_decoupled_with_adamw(name, embeddings):
    """Two steps by hand (Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2)."""
    rate, decay, b1, b2 = 0.1, 0.5, 0.9, 0.999
    config = OptimizerConfig(
        name, rate, warmup_steps=0, weight_decay=decay, decay_embeddings=embeddings, b1=b1, b2=b2
    )
    optimizer = make_optimizer(config, steps_per_epoch=1, total_steps=10)
    params = {"kernel": jnp.array([[2.0]]), "table": jnp.array([[-3.0]]), "bias": jnp.array([4.0])}
    expected = {leaf: float(value.squeeze()) for leaf, value in params.items()}
    first, second = dict.fromkeys(params, 0.0), dict.fromkeys(params, 0.0)
    state = optimizer.init(params)
    for step, slope in enumerate([0.3, -0.2], start=1):
        gradient = {leaf: jnp.full_like(value, slope) for leaf, value in params.items()}
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        for leaf, value in expected.items():
            term = decay * value if leaf == "kernel" or (leaf == "table" and embeddings) else 0.0
            total = slope + (term if name == "adam" else 0.0)
            first[leaf] = b1 * first[leaf] + (1 - b1) * total
            second[leaf] = b2 * second[leaf] + (1 - b2) * total**2
            scaled = first[leaf] / (1 - b1**step) / (np.sqrt(second[leaf] / (1 - b2**step)) + 1e-8)
            expected[leaf] = value - rate * (scaled + (term if name == "adamw" else 0.0))
    for leaf, value in expected.items():
        np.testing.assert_allclose(params[leaf].squeeze(), value, rtol=1e-4, err_msg=leaf)
