"""Parameters for the workers, where any will do: drawn by numpy, which compiles no program for each model."""

import jax
import numpy as np

from jaxrec.typing import Params


def drawn_params(model, scale: float = 0.3) -> Params:
    """Normal numbers of one scale in every leaf, on the host."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: generator.normal(0.0, scale, leaf.shape).astype(leaf.dtype), shapes)


__all__ = ["drawn_params"]
