"""What a placement asks of the devices; that all ways of training are equal is in ``test_training.py``."""

import jax
import jax.numpy as jnp
import pytest

from jaxrec.batch import SequenceBatch
from jaxrec.devices.mesh import ParallelConfig
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.train.optimizer import OptimizerConfig, make_optimizer
from jaxrec.train.parallel import Placement


def test_more_devices_than_there_are():
    with pytest.raises(ValueError, match=r"asks for 1000 devices, and \d+ cpu devices are there"):
        Placement(ParallelConfig(devices=1000))


def test_placement_takes_all_devices_by_default():
    assert Placement(ParallelConfig()).num_devices == jax.device_count()


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_state_comes_back_where_it_went_in(mode):
    """Otherwise the second call would compile the step again."""
    placement = Placement(ParallelConfig(mode=mode))
    model = EncoderRecommender(num_items=9, max_length=4, width=8, num_layers=1)
    optimizer = make_optimizer(OptimizerConfig(), steps_per_epoch=1, total_steps=9)
    state = placement.create_state(model, optimizer, jax.random.key(0))
    before = jax.tree.map(lambda leaf: leaf.sharding, state)
    ids = jnp.ones((1, 8, 4), jnp.int32)
    batches = placement.put_batches(SequenceBatch(ids, ids, jnp.ones(ids.shape)))
    key = jax.device_put(jax.random.key(1), placement.replicated)
    state, _ = placement.compile_step(model, optimizer)(state, batches, key)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == before
    assert before == jax.tree.map(lambda shape: shape.sharding, placement.state_shapes(model, optimizer))
