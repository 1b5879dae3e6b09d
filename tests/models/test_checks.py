"""Models refuse attention, losses and penalties that they cannot be trained with."""

import jax
import jax.numpy as jnp
import pytest

from jaxrec.batch import SequenceBatch
from jaxrec.models.diffurec import DiffuRecRecommender
from jaxrec.models.encoder import EncoderRecommender, Penalty
from jaxrec.models.stosa import DistanceLoss, StosaRecommender
from jaxrec.nn.attention import DotProduct
from jaxrec.nn.diffusion_attention import DiffusionAttention
from jaxrec.nn.refinement import Refined
from jaxrec.nn.stochastic import WassersteinScores

OVER_GAUSSIANS = Refined(base=WassersteinScores())


@pytest.mark.parametrize("attention", [WassersteinScores(), OVER_GAUSSIANS], ids=["base", "refined"])
def test_attention_between_gaussians_is_for_stosa(attention):
    assert StosaRecommender(attention=attention).attention is attention
    with pytest.raises(ValueError, match="reads Gaussians, and the items of EncoderRecommender are vectors"):
        EncoderRecommender(attention=attention)


@pytest.mark.parametrize("attention", [DotProduct(), Refined()], ids=["base", "refined"])
def test_attention_between_vectors_is_for_the_others(attention):
    assert EncoderRecommender(attention=attention).attention is attention
    with pytest.raises(
        ValueError, match=r"reads vectors, and .* Gaussians; take another .*WassersteinScores"
    ):
        StosaRecommender(attention=attention)


@pytest.mark.parametrize("model", [EncoderRecommender, DiffuRecRecommender])
def test_a_loss_of_distances_is_for_stosa(model):
    assert StosaRecommender(loss_function=DistanceLoss()).loss_function == DistanceLoss()
    with pytest.raises(ValueError, match=r"DistanceLoss is of distances .* ranks by inner product"):
        model(loss_function=DistanceLoss())


@pytest.mark.parametrize("model", [EncoderRecommender, StosaRecommender, DiffuRecRecommender])
@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_dropout_rate_is_a_share(model, rate):
    with pytest.raises(ValueError, match=f"dropout_rate must lie between 0 and 1, got {rate}"):
        model(dropout_rate=rate)


def test_a_coefficient_for_a_penalty_that_is_not_given_is_refused():
    model = EncoderRecommender(
        num_items=9,
        max_length=4,
        width=8,
        num_layers=1,
        attention=DiffusionAttention(),
        penalties=(Penalty("denoising", 0.1),),
    )
    items = jnp.ones((2, 4), jnp.int32)
    batch = SequenceBatch(items, items, jnp.ones((2, 4)))
    params = jax.eval_shape(model.init, jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"does not give the penalty 'denoising'.*turn it on in the attention"
    ):
        jax.eval_shape(model.loss, params, batch, jax.random.key(1))


def test_a_penalty_is_named_once():
    with pytest.raises(ValueError, match="penalties name one penalty twice: kl, kl"):
        EncoderRecommender(penalties=(Penalty("kl", 1.0), Penalty("kl", 2.0)))
