"""The average of the parameters against its definition, and that it disturbs nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrec.train.averaging import AverageState, params_to_rank, with_average
from jaxrec.train.optimizer import OptimizerConfig, make_optimizer
from jaxrec.train.state import TrainState

DECAY, STEPS = 0.7, 6
PARAMS = {"table": jnp.arange(6.0).reshape(3, 2), "bias": jnp.array([-1.0, 2.0])}


def trained(ema_decay: float) -> list[TrainState]:
    """A state after each of some steps of Adam, the fresh one first."""
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=0, clip_norm=1.0, ema_decay=ema_decay)
    optimizer = make_optimizer(config, steps_per_epoch=1, total_steps=STEPS)
    states = [TrainState(PARAMS, optimizer.init(PARAMS), jnp.int32(0))]
    for step in range(STEPS):
        last = states[-1]
        gradient = jax.tree.map(lambda leaf, step=step: jnp.sin(leaf + step), last.params)
        updates, inner = jax.jit(optimizer.update)(gradient, last.optimizer_state, last.params)
        states.append(TrainState(optax.apply_updates(last.params, updates), inner, last.step + 1))
    return states


def test_the_average_is_the_weighted_mean_of_the_steps_so_far():
    states = trained(DECAY)
    for steps in range(1, STEPS + 1):
        weights = DECAY ** np.arange(steps)[::-1]
        weights /= weights.sum()
        for name in PARAMS:
            values = np.stack([state.params[name] for state in states[1 : steps + 1]])
            found = params_to_rank(states[steps])[name]
            np.testing.assert_allclose(found, np.tensordot(weights, values, 1), rtol=1e-5, err_msg=name)


def test_of_one_step_it_is_that_step_also_where_float32_hardly_knows_the_decay_from_one():
    state = trained(0.99999)[1]
    for name, value in state.params.items():
        np.testing.assert_allclose(params_to_rank(state)[name], value, rtol=1e-6, err_msg=name)


def test_parameters_move_as_without_an_average():
    for averaged, plain in zip(trained(DECAY), trained(0.0), strict=True):
        jax.tree.map(np.testing.assert_array_equal, averaged.params, plain.params)
        assert isinstance(averaged.optimizer_state, AverageState)
        assert params_to_rank(plain) is plain.params


def test_before_the_first_step_it_is_the_parameters_in_memory_of_its_own():
    """The training step gives the buffers of its state away, which cannot be done twice."""
    average = with_average(optax.sgd(0.1), DECAY).init(PARAMS).average
    for name, leaf in PARAMS.items():
        np.testing.assert_array_equal(average[name], leaf)
        assert average[name].unsafe_buffer_pointer() != leaf.unsafe_buffer_pointer()


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(ValueError, match=r"ema_decay must be at least 0 and below 1, got"):
        OptimizerConfig(ema_decay=decay)
