"""What several test files share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.batch import row_keys
from jaxrec.recommender import table_rows


def make_log(lengths):
    """Items that tell where they stand: user u's k-th item is 1000 u + k + 1."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.concatenate([1000 * user + np.arange(n) + 1 for user, n in enumerate(lengths)]).astype(
        np.int32
    )
    return items, offsets


@dataclasses.dataclass(frozen=True)
class BagRecommender:
    """The query is the sum of the window's embeddings, with noise if stochastic; the parameters are the table."""

    num_items: int
    max_length: int
    width: int = 4
    stochastic: bool = False

    def init(self, key):
        """Small integers, so that scores are exact and full of ties."""
        return jax.random.randint(key, (table_rows(self.num_items), self.width), -3, 4).astype(jnp.float32)

    def query(self, params, items, key):
        query = jnp.sum(jnp.where(items[..., None] > 0, params[items], 0.0), axis=1)
        if self.stochastic:
            query += jax.vmap(lambda key: jax.random.normal(key, (self.width,)))(row_keys(key, items))
        return query

    def items(self, params):
        return params


__all__ = ["BagRecommender", "make_log"]
