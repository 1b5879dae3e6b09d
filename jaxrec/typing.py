"""The legend of array dimensions and the aliases that every module uses.

Shapes in docstrings are written with these letters:

=  ==================================================================
B  rows of a batch (users, or windows of users)
L  positions of a sequence, oldest first, right-aligned
M  positions attended to, where they differ from L (memory of a cross-attention)
D  width of the model
H  attention heads
C  channels of one head, D / H
Q  width of the ranking space (``Recommender.query`` and ``.items``)
V  rows of the item table: padding (row 0), the items, rows up to a multiple of 128
K  length of a recommendation list
T  diffusion steps
S  optimizer steps of one call, or the length of an exclusion list (said where used)
Z  width of a latent variable
=  ==================================================================
"""

from typing import Any, Literal

import jax

Array = jax.Array
PRNGKey = jax.Array
"""A typed key made by ``jax.random.key``; a function takes one and consumes it."""

Params = Any
"""A pytree of float32 arrays; its names are the checkpoint format."""

Dtype = Any

ComputeType = Literal["float32", "bfloat16"]
"""A compute type as a configuration names it."""

__all__ = ["Array", "ComputeType", "Dtype", "PRNGKey", "Params"]
