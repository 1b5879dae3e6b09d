"""What ``recommend`` takes: arrays of ids and masks of items, checked before any work."""

import jax.numpy as jnp
import numpy as np

from jaxrec.recommender import table_rows
from jaxrec.typing import Array


def as_ids(name: str, array: Array, dimensions: tuple[int, ...]) -> Array:
    """An array of integers with one of some numbers of axes; lists become numpy arrays.

    Raises:
      ValueError: it is something else; names the argument.
    """
    array = array if hasattr(array, "dtype") else np.asarray(array)
    if jnp.ndim(array) not in dimensions or not jnp.issubdtype(array.dtype, jnp.integer):
        shapes = " or ".join(f"{number}-dimensional" for number in dimensions)
        raise ValueError(
            f"{name} must be a {shapes} array of integers, it has shape {jnp.shape(array)}"
            f" and type {array.dtype}"
        )
    return array


def check_ids(items: np.ndarray, num_items: int) -> None:
    """Refuses histories ``[B, L]`` with ids that are no item of the catalogue (0 is padding).

    Raises:
      ValueError: there is such an id; names the first.
    """
    wrong = items[(items < 0) | (items > num_items)]
    if wrong.size:
        raise ValueError(
            f"items has the id {wrong[0]}, but the model's items have the ids 1 to {num_items}, and 0 is padding; for"
            " ids of your own there is run.recommend"
        )


def as_mask(allowed: Array, num_items: int) -> Array:
    """A mask of items ``[num_items + 1]`` or ``[V]`` as long as the item table, ``[V]`` bool.

    Raises:
      ValueError: it has another shape or type.
    """
    allowed, rows = allowed if hasattr(allowed, "dtype") else np.asarray(allowed), table_rows(num_items)
    shape, kind = jnp.shape(allowed), allowed.dtype
    if shape not in ((rows,), (num_items + 1,)) or kind != np.bool_:
        raise ValueError(
            f"allowed must be a row of bool, one for each id from 0 to {num_items}"
            f" ({num_items + 1}, or {rows} as the item table), it has shape {shape} and type {kind}"
        )
    if shape == (rows,):
        return allowed
    pad = np.pad if isinstance(allowed, np.ndarray) else jnp.pad
    return pad(allowed, (0, rows - num_items - 1))


__all__ = ["as_ids", "as_mask", "check_ids"]
