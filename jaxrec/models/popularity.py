"""The baseline that every results table must contain: the same list for everybody."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np

from jaxrec.batch import SequenceBatch
from jaxrec.recommender import LossOutput, table_rows
from jaxrec.typing import Array, Params, PRNGKey


@dataclasses.dataclass(frozen=True)
class PopularityRecommender:
    """Ranks items by how often they occur in the training part; Q = 1.

    There is nothing to learn by gradient: ``counts_to_params`` makes the parameters.

    Attributes:
      num_items: filled from the data.
      max_length: histories do not matter; any window will do.
    """

    num_items: int = 0
    max_length: int = 1

    target_positions: Literal["all", "last"] = dataclasses.field(default="all", init=False, repr=False)
    stochastic: bool = dataclasses.field(default=False, init=False, repr=False)

    def init(self, key: PRNGKey) -> Params:
        """No item has been seen: all counts are 0."""
        del key
        return {"counts": jnp.zeros((table_rows(self.num_items),), jnp.float32)}

    def counts_to_params(self, counts: np.ndarray) -> Params:
        """Parameters from the training counts ``[num_items + 1]`` (index 0 is padding)."""
        table = np.zeros(table_rows(self.num_items), np.float32)
        table[: len(counts)] = counts
        return {"counts": jnp.asarray(table)}

    def loss(
        self, params: Params, batch: SequenceBatch, key: PRNGKey, *, step: Array | int = 0
    ) -> LossOutput:
        """Cross-entropy of the targets under the smoothed counts (for comparison; it trains nothing)."""
        del key, step
        ids = jnp.arange(params["counts"].shape[0])
        smoothed = jnp.where((ids > 0) & (ids <= self.num_items), params["counts"] + 1.0, 0.0)
        log_probability = jnp.log(smoothed) - jnp.log(jnp.sum(smoothed))
        total = -jnp.sum(jnp.where(batch.weights > 0, log_probability[batch.targets], 0.0) * batch.weights)
        return LossOutput(total, jnp.sum(batch.weights), {"ranking_loss": total})

    def query(self, params: Params, items: Array, key: PRNGKey) -> Array:
        """A one for everybody: ``[B, 1]``."""
        del params, key
        return jnp.ones((items.shape[0], 1), jnp.float32)

    def items(self, params: Params) -> Array:
        """The counts as a column: ``[V, 1]``."""
        return params["counts"][:, None]


__all__ = ["PopularityRecommender"]
