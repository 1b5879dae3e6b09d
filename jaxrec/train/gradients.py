"""Gradients spread over devices: their sum, their norm and their clipping, with item tables whole or split."""

import jax
import jax.numpy as jnp
import optax

from jaxrec.devices.item_table import is_item_table, table_axis
from jaxrec.typing import Array, Params


def add_over_devices(gradient: Params, axes: str | tuple[str, ...] | None) -> Params:
    """The sum over the devices of ``axes``; of split item tables, over those that hold the same rows."""
    split = table_axis()
    if split is None:
        return jax.lax.psum(gradient, axes) if axes else gradient
    others = tuple(axis for axis in axes if axis != split)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.lax.psum(leaf, others if is_item_table(path) else axes), gradient
    )


def gradient_norm(gradient: Params) -> Array:
    """The Euclidean norm of all parameters' gradient, a float32 scalar, the same on every device."""
    axis = table_axis()
    if axis is None:
        return optax.tree.norm(gradient)
    own, shared = jnp.float32(0.0), jnp.float32(0.0)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        squares = jnp.sum(jnp.square(leaf))
        if is_item_table(path):
            own += squares
        else:
            shared += squares
    return jnp.sqrt(shared + jax.lax.psum(own, axis))


def clip_by_norm(largest: float) -> optax.GradientTransformation:
    """Scales the gradient down to the norm ``largest``, as ``optax.clip_by_global_norm`` does on whole parameters."""

    def clip(updates: Params, params: Params | None) -> Params:
        del params
        norm = gradient_norm(updates)
        return jax.tree.map(lambda leaf: jnp.where(norm < largest, leaf, leaf / norm * largest), updates)

    return optax.stateless(clip)


__all__ = ["add_over_devices", "clip_by_norm", "gradient_norm"]
