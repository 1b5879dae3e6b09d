"""What several test files share."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.batch import row_keys
from jaxrec.recommender import table_rows
from jaxrec.typing import Params


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
    target_positions: str = "all"

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


def drawn_params(model, scale: float = 0.3) -> Params:
    """Parameters where any will do: normal numbers of one scale, by numpy, so that no program makes them."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: generator.normal(0.0, scale, leaf.shape).astype(leaf.dtype), shapes)


def results_of(worker: Path, what: str, folder: Path) -> dict[str, np.ndarray]:
    """The arrays that ``worker what FILE.npz`` writes in a process of its own, without a warning."""
    path = folder / f"{what}.npz"
    subprocess.run([sys.executable, "-W", "error", str(worker), what, str(path)], check=True)
    return dict(np.load(path))


def below(results: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The part of the results below a prefix, by what follows it."""
    found = {
        name.removeprefix(prefix + "/"): value
        for name, value in results.items()
        if name.startswith(prefix + "/")
    }
    assert found, prefix
    return found


def assert_arrays_equal(results: dict[str, np.ndarray], expected: dict[str, np.ndarray], **tolerance) -> None:
    """The same names, and arrays that are ``assert_allclose``."""
    assert results.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(results[name], value, err_msg=name, **tolerance)


__all__ = ["BagRecommender", "assert_arrays_equal", "below", "drawn_params", "make_log", "results_of"]
