"""Classes such as a person brings along: an attention, a loss, a schedule and a recommender, each tiny."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxrec
from jaxrec.diffusion import Schedule
from jaxrec.losses import Loss, SoftmaxLoss
from jaxrec.nn.attention import AttentionOutput, masked_softmax
from jaxrec.recommender import table_rows


@jaxrec.register
class DecayingAttention(nn.Module):
    """Weights that fall with the distance, alike for all histories."""

    rate: float = 0.5
    num_heads: int | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, query, key, mask, *, train):
        del train
        rate = self.param("rate", nn.initializers.constant(self.rate), (self.num_heads, 1, 1))
        places = jnp.arange(query.shape[1], dtype=jnp.float32)
        logits = -rate * jnp.abs(places[:, None] - places)
        logits = jnp.broadcast_to(logits, (len(query), *logits.shape))
        return AttentionOutput(masked_softmax(logits, mask), logits, {})


@jaxrec.register
@dataclasses.dataclass(frozen=True)
class HalvedLoss:
    """Half of another loss."""

    base: Loss = SoftmaxLoss()

    def __call__(self, query, items, targets, weights, key, *, num_items):
        total, weight = self.base(query, items, targets, weights, key, num_items=num_items)
        return 0.5 * total, weight


@jaxrec.register
@dataclasses.dataclass(frozen=True)
class ConstantSchedule(Schedule):
    """The same noise at every step."""

    beta: float = 0.1

    def _raw_betas(self):
        return np.full(self.num_steps, self.beta)


@jaxrec.register
@dataclasses.dataclass(frozen=True)
class BagOfItems:
    """The query is the mean of the history's rows in the item table."""

    num_items: int = 0
    max_length: int = 8
    width: int = 8
    scales: tuple[float, ...] = (1.0, 0.5)
    loss_function: Loss = HalvedLoss()

    target_positions: Literal["all", "last"] = dataclasses.field(default="last", init=False)
    stochastic: bool = dataclasses.field(default=False, init=False)

    def init(self, key):
        return {"table": 0.1 * jax.random.normal(key, (table_rows(self.num_items), self.width))}

    def loss(self, params, batch, key, *, step=0):
        query = self.query(params, batch.items, key)
        total, weight = self.loss_function(
            query, params["table"], batch.targets[:, -1], batch.weights[:, -1], key, num_items=self.num_items
        )
        return jaxrec.LossOutput(total, weight, {})

    def query(self, params, items, key):
        real = (items > 0)[..., None]
        return jnp.sum(real * params["table"][items], axis=1) / jnp.maximum(jnp.sum(real, axis=1), 1)

    def items(self, params):
        return params["table"]
