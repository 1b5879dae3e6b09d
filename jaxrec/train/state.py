"""What training carries from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrec.recommender import Recommender
from jaxrec.typing import Array, Params, PRNGKey


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters, optimizer state and the number of steps taken (int32 scalar).

    No random key is kept: the key of a step is the run's key folded with ``step``.
    """

    params: Params
    optimizer_state: optax.OptState
    step: Array


def create_state(
    recommender: Recommender, optimizer: optax.GradientTransformation, key: PRNGKey, shardings: Any = None
) -> TrainState:
    """A fresh state, jitted, so that large tables are drawn on the devices that hold them.

    Args:
      recommender: draws the parameters.
      optimizer: makes its state from them.
      key: random key of the parameters.
      shardings: where the state's leaves lie (see ``Placement.shardings``), or one for all; ``None`` is the default
        device. They do not change the values.
    """

    def create(key: PRNGKey) -> TrainState:
        params = recommender.init(key)
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    return jax.jit(create, out_shardings=shardings)(key)


__all__ = ["TrainState", "create_state"]
