"""A running average of the parameters, kept beside the optimizer's state: what is evaluated, saved and served."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrec.train.state import TrainState
from jaxrec.typing import Array, Params


class AverageState(NamedTuple):
    """State of an optimizer that averages.

    Attributes:
      average: of the parameters after each step so far; before the first step, the parameters.
      steps: int32 scalar, how many are in it.
      inner: state of the optimizer that moves the parameters.
    """

    average: Params
    steps: Array
    inner: optax.OptState


def with_average(optimizer: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """The same optimizer, which also keeps an exponential moving average of the parameters it makes.

    After t steps it is the sum of (1 - d) d^(t-i) p_i over the steps i, divided by 1 - d^t, the sum of these weights,
    so that the first steps are no average with the initial parameters: the parameters' form of Adam's correction
    (Kingma and Ba 2015, section 3). It is kept up to date by moving the share (1 - d) / (1 - d^t) of the way to p_t.

    Args:
      optimizer: moves the parameters; its updates are handed on unchanged.
      decay: d, between 0 and 1; about 1 / (1 - d) steps count.
    """

    def init(params: Params) -> AverageState:
        # A training step gives both buffers away, so they may not be one.
        average = jax.tree.map(jnp.copy, params)
        return AverageState(average, jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(updates: Params, state: AverageState, params: Params) -> tuple[Params, AverageState]:
        updates, inner = optimizer.update(updates, state.inner, params)
        steps = state.steps + 1
        kept = jnp.float32(decay)
        share = (1 - kept) / (1 - kept**steps)
        average = optax.incremental_update(optax.apply_updates(params, updates), state.average, share)
        return updates, AverageState(average, steps, inner)

    return optax.GradientTransformation(init, update)


def params_to_rank(state: TrainState) -> Params:
    """The parameters that lists are made with: the average where one is kept, else those of the last step."""
    if isinstance(state.optimizer_state, AverageState):
        return state.optimizer_state.average
    return state.params


__all__ = ["AverageState", "params_to_rank", "with_average"]
