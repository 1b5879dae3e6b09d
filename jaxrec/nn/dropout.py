"""Dropout whose mask costs next to nothing."""

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.devices.random_bits import hash_bits, row_counters
from jaxrec.typing import Array


class Dropout(nn.Module):
    """Sets a share of the values to 0 and scales up the others (Srivastava et al. 2014).

    The same as ``flax.linen.Dropout``, drawn from the stream ``"dropout"``, but with the mask of
    ``random_bits``: on a CPU about twenty times faster, as the mask is computed inside the loop that uses it. Along
    the leading axis stand the rows of the batch, whose masks do not depend on how many devices share it.

    Attributes:
      rate: share that is dropped, 0 to 1.
      deterministic: whether to pass the input through; may be given at the call instead.
    """

    rate: float
    deterministic: bool | None = None

    @nn.compact
    def __call__(self, inputs: Array, deterministic: bool | None = None) -> Array:
        """Any shape; the same shape and type."""
        deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"a dropout rate is {self.rate}, but must lie between 0 and 1")
        if deterministic or self.rate == 0.0:
            return inputs
        if self.rate == 1.0:
            return jnp.zeros_like(inputs)
        bits = hash_bits(self.make_rng("dropout"), row_counters(inputs.shape))
        threshold = jnp.uint32(round(self.rate * 2**32))
        scaled = inputs * jnp.asarray(1.0 / (1.0 - self.rate), inputs.dtype)
        return jnp.where(bits >= threshold, scaled, jnp.zeros_like(inputs))


__all__ = ["Dropout"]
