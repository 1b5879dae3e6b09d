"""Random lists: what a model reaches that knows nothing."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxrec.batch import SequenceBatch, row_keys
from jaxrec.recommender import LossOutput, table_rows
from jaxrec.registry import register
from jaxrec.typing import Array, Params, PRNGKey


@register
@dataclasses.dataclass(frozen=True)
class RandomRecommender:
    """Ranks items in an order drawn for each history: random queries against random unit vectors.

    All items are alike before the draw, so HR@K is K over the items that may be ranked, on average. Its
    intra-list distance says nothing, as its vectors mean nothing.

    Attributes:
      num_items: filled from the data.
      max_length: histories only decide the draw.
      width: Q of the vectors.
    """

    num_items: int = 0
    max_length: int = 8
    width: int = 64

    target_positions: Literal["all", "last"] = dataclasses.field(default="all", init=False, repr=False)
    stochastic: bool = dataclasses.field(default=True, init=False, repr=False)

    def init(self, key: PRNGKey) -> Params:
        """Unit vectors ``[V, Q]``."""
        vectors = jax.random.normal(key, (table_rows(self.num_items), self.width), jnp.float32)
        return {"vectors": vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)}

    def loss(
        self, params: Params, batch: SequenceBatch, key: PRNGKey, *, step: Array | int = 0
    ) -> LossOutput:
        """Cross-entropy of equally likely items (for comparison; it trains nothing)."""
        del params, key, step
        weight = jnp.sum(batch.weights)
        total = weight * jnp.log(float(self.num_items))
        return LossOutput(total, weight, {"ranking_loss": total})

    def query(self, params: Params, items: Array, key: PRNGKey) -> Array:
        """One draw a history: ``[B, Q]``."""
        del params
        return jax.vmap(lambda key: jax.random.normal(key, (self.width,)))(row_keys(key, items))

    def items(self, params: Params) -> Array:
        """The unit vectors: ``[V, Q]``."""
        return params["vectors"]


__all__ = ["RandomRecommender"]
