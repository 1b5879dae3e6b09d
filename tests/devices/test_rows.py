"""Losses of the parts of a batch add up to the loss of the whole: what is drawn follows the row of the batch.

Parts are rows along a mapped axis, so that one device can play several, or rows that it takes in turn.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.batch import SequenceBatch
from jaxrec.devices.rows import rows_split_over
from jaxrec.losses import BinaryLoss, GeneralizedBinaryLoss, PairwiseLoss, SampledSoftmaxLoss
from jaxrec.models.denoising import Objective
from jaxrec.models.diffurec import DiffuRecRecommender
from jaxrec.models.diffurecsys import DiffuRecSysRecommender
from jaxrec.models.encoder import EncoderRecommender, Penalty
from jaxrec.models.stosa import DistanceLoss
from jaxrec.nn.vae_attention import VaeAttention
from jaxrec.train.accumulation import TOKENS_IN_CACHE, default_parts, parts_of
from jaxrec.train.optimizer import OptimizerConfig, make_optimizer
from jaxrec.train.state import create_state
from jaxrec.train.step import make_train_step

ROWS, LENGTH, WIDTH, NUM_ITEMS = 8, 6, 9, 40
EVERY_OPTION = Objective(
    noise_power=1.0, target_dropout=0.3, own_estimate=0.5, self_conditioning=True, history_loss=0.5
)
TINY = {"num_items": NUM_ITEMS, "max_length": LENGTH, "width": 8, "num_layers": 1, "num_heads": 2}

LOSSES = {
    "sampled": SampledSoftmaxLoss(num_negatives=5, block=7),
    "in-batch": SampledSoftmaxLoss(num_negatives=5, in_batch=True),
    "only-in-batch": SampledSoftmaxLoss(num_negatives=0, in_batch=True, logq=False),
    "binary": BinaryLoss(num_negatives=3, block=5),
    "generalized-binary": GeneralizedBinaryLoss(num_negatives=4),
    "pairwise": PairwiseLoss(),
    "distance": DistanceLoss(),
}


def make_batch() -> SequenceBatch:
    """Histories of different lengths."""
    generator = np.random.default_rng(0)
    items = generator.integers(1, NUM_ITEMS + 1, (ROWS, LENGTH)).astype(np.int32)
    real = np.arange(LENGTH) >= generator.integers(0, LENGTH - 1, (ROWS, 1))
    targets = generator.integers(1, NUM_ITEMS + 1, (ROWS, LENGTH)).astype(np.int32)
    return SequenceBatch(
        jnp.asarray(items * real), jnp.asarray(targets * real), jnp.asarray(real, jnp.float32)
    )


def in_parts(tree, parts: int):
    return jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), tree)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_of_the_parts_add_up(loss):
    """Tokens stand in one axis, as models flatten them."""
    batch, key = make_batch(), jax.random.key(1)
    query = jax.random.normal(jax.random.key(2), (ROWS * LENGTH, WIDTH))
    items = jax.random.normal(jax.random.key(3), (128, WIDTH))

    def total(axis, query, targets, weights):
        with rows_split_over(axis):
            return loss(query, items, targets, weights, key, num_items=NUM_ITEMS)

    @jax.jit
    def both(arguments):
        of_parts = jax.vmap(functools.partial(total, "data"), axis_name="data")
        return total(None, *arguments), of_parts(*in_parts(arguments, 4))

    whole, parts = both((query, batch.targets.reshape(-1), batch.weights.reshape(-1)))
    np.testing.assert_allclose([jnp.sum(part) for part in parts], whole, rtol=1e-5)


MODELS = {
    "remat": EncoderRecommender(**TINY, rematerialise=True),
    "global": EncoderRecommender(
        **TINY, attention=VaeAttention(form="global"), penalties=(Penalty("kl", 1.0),)
    ),
    "every-option": DiffuRecSysRecommender(
        **TINY, form="history-cached", objective=EVERY_OPTION, uncertainty=0.5
    ),
}
SGD = make_optimizer(
    OptimizerConfig(name="sgd", learning_rate=0.2, warmup_steps=0), steps_per_epoch=1, total_steps=10
)


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def stepped(request):
    """A model, the arguments of a step, and what the step on the whole batch gives."""
    model = request.param
    arguments = (create_state(model, SGD, jax.random.key(0)), make_batch(), jax.random.key(1))
    return model, arguments, jax.jit(make_train_step(model, SGD))(*arguments)


def assert_close(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-7)


@pytest.mark.slow
def test_a_step_on_parts_in_turn_is_the_step_on_the_whole(stepped):
    """Loss, gradient norm and parameters."""
    model, arguments, expected = stepped
    step = make_train_step(model, SGD, parts_wanted=lambda batch: 4)
    assert_close(jax.jit(step)(*arguments), expected)


@pytest.mark.slow
def test_a_step_on_parts_over_two_axes_is_the_step_on_the_whole(stepped):
    """The rows split over ``data`` and ``model`` in that order, and in turn on each device."""
    model, (state, batch, key), expected = stepped
    step = make_train_step(model, SGD, axis_name=("data", "model"), parts_wanted=lambda batch: 2)
    for name in ("model", "data"):
        step = jax.vmap(step, in_axes=(None, 0, None), out_axes=None, axis_name=name)
    split = jax.tree.map(lambda leaf: leaf.reshape(2, 2, -1, *leaf.shape[1:]), batch)
    assert_close(jax.jit(step)(state, split, key), expected)


@pytest.mark.parametrize(
    ("rows", "wanted", "parts"), [(8, 1, 1), (8, 3, 2), (7, 6, 1), (4, 9, 4), (12, 6, 6)]
)
def test_parts_divide_the_rows(rows, wanted, parts):
    assert parts_of(rows, wanted) == parts


def test_parts_are_taken_where_a_cpu_gains_from_them():
    batch = jax.tree.map(lambda leaf: jnp.tile(leaf, (TOKENS_IN_CACHE // 16, 1)), make_batch())
    one_target = DiffuRecRecommender(**TINY)
    assert default_parts(one_target, batch, "cpu") == LENGTH // 2
    assert default_parts(one_target, batch, "gpu") == 1
    assert default_parts(EncoderRecommender(**TINY), batch, "cpu") == 1
    long = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((20, 200), leaf.dtype), make_batch())
    for num_items, parts in ((6_400, 2), (6_401, 1)):
        assert default_parts(EncoderRecommender(num_items=num_items, max_length=200), long, "cpu") == parts
    in_batch = DiffuRecRecommender(**TINY, loss_function=LOSSES["in-batch"])
    assert default_parts(in_batch, batch, "cpu") == 1


def test_in_batch_negatives_refuse_parts_in_turn():
    model = EncoderRecommender(**TINY, loss_function=LOSSES["in-batch"])
    step = make_train_step(model, SGD, parts_wanted=lambda batch: 2)
    state = jax.eval_shape(lambda: create_state(model, SGD, jax.random.key(0)))
    with pytest.raises(ValueError, match=r"in-batch negatives.*train\.accumulate to 1"):
        jax.eval_shape(step, state, make_batch(), jax.random.key(1))
