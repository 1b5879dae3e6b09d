"""Item and position embeddings of right-aligned sequences."""

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.devices.item_table import local_rows, take_rows
from jaxrec.nn.dropout import Dropout
from jaxrec.typing import Array, Dtype


class ItemEmbedding(nn.Module):
    """The item table, shared by the input of the encoder and the ranking of its output.

    Where ``item_table.table_split_over`` says so, the parameter is this device's rows of it.

    Attributes:
      rows: V, padding row 0 included.
      width: D.
      stddev: standard deviation of the initial values, which are normal.
    """

    rows: int
    width: int
    stddev: float = 0.02

    def setup(self):
        self.table = self.param(
            "table", nn.initializers.normal(self.stddev), (local_rows(self.rows), self.width)
        )

    def __call__(self, items: Array) -> Array:
        """``[..., D]`` embeddings of ``items`` ``[...]``; float32, the padding row as it is."""
        return take_rows(self.table, items)


class PositionEmbedding(nn.Module):
    """One learned vector a place, counted from the sequence's end, so that padding changes nothing.

    Attributes:
      max_length: places there are.
      stddev: standard deviation of the initial values, which are normal.
    """

    max_length: int
    stddev: float = 0.02

    @nn.compact
    def __call__(self, hidden: Array) -> Array:
        """Adds the places of ``hidden`` ``[B, L, D]``, L at most ``max_length``."""
        length, width = hidden.shape[-2:]
        table = self.param("table", nn.initializers.normal(self.stddev), (self.max_length, width))
        return hidden + table[self.max_length - length :]


class SequenceInput(nn.Module):
    """What enters the first block: scaled item embeddings, places, dropout.

    Attributes:
      max_length: the longest sequence.
      positions: whether places are embedded.
      scale: multiplies the item embeddings (SASRec uses √D).
      dropout_rate: dropout on the sum, in training.
      dtype: compute type of what is returned.
    """

    max_length: int
    positions: bool = True
    scale: float = 1.0
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, embedded: Array, *, train: bool) -> Array:
        """From item embeddings ``[B, L, D]`` to block input ``[B, L, D]``."""
        hidden = embedded * self.scale
        if self.positions:
            hidden = PositionEmbedding(self.max_length, name="positions")(hidden)
        hidden = hidden.astype(self.dtype)
        return Dropout(self.dropout_rate, deterministic=not train)(hidden)


__all__ = ["ItemEmbedding", "PositionEmbedding", "SequenceInput"]
