"""What decays and what does not."""

import jax
import pytest

from jaxrec.models.encoder import EncoderRecommender, Penalty
from jaxrec.nn.vae_attention import VaeAttention
from jaxrec.train.optimizer import decayed

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
