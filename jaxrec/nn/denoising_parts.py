"""What both approximators share: blocks that may read the clean history, and the signal of the target.

``approximator.py`` works over the positions of a prefix, ``target_approximator.py`` over noised targets alone.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.nn.cross_attention import CrossAttention, CrossAttentionForm, Memory
from jaxrec.nn.dropout import Dropout
from jaxrec.nn.encoder import Activation, FeedForward
from jaxrec.nn.target_signal import TargetSignal, Visibility
from jaxrec.typing import Array, Dtype


class ReadingBlock(nn.Module):
    """The parts of a block that reads the clean history (optional) and ends in a feed-forward; pre-norm.

    Attributes:
      width: D.
      num_heads: H.
      hidden_width: width of the feed-forward's hidden layer.
      cross_attention: ``"none"``, ``"softmax"`` or ``"linear"``.
      activation: non-linearity of the feed-forward.
      dropout_rate: everywhere in the block, in training.
      dtype: compute type. The residual stream is float32 whatever it is, but each sub-layer reads a norm of this
        type: in bfloat16 and at λ = 0.001 more than half of the channels that a sub-layer reads do not change at
        all when x_t changes. Use float32 to study the offset, or whatever else is of the noise, at small λ.
    """

    width: int
    num_heads: int
    hidden_width: int
    cross_attention: CrossAttentionForm = "none"
    activation: Activation = "gelu"
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32

    def setup(self):
        if self.cross_attention != "none":
            self.cross = CrossAttention(
                self.width, self.num_heads, self.cross_attention, self.dropout_rate, self.dtype
            )
        self.norm_feed_forward = nn.LayerNorm(dtype=self.dtype)
        self.feed_forward = FeedForward(self.hidden_width, self.activation, self.dropout_rate, self.dtype)
        self.dropout = Dropout(self.dropout_rate)

    def memory(self, history: Array, mask: Array) -> Memory | None:
        """The history ``[B, M, D]`` as the block reads it under ``mask`` ``[B, 1, L or 1, M]``, if it does."""
        return None if self.cross_attention == "none" else self.cross.memory(history, mask)

    def read(self, hidden: Array, queries: Array, memory: Memory, *, train: bool) -> Array:
        """``hidden`` ``[B, L, D]`` plus what ``queries`` ``[B, L or 1, D]`` read from the history."""
        mixed = self.cross(queries, memory, train=train)
        return hidden + self.dropout(mixed, deterministic=not train)

    def feed(self, hidden: Array, *, train: bool) -> Array:
        """``hidden`` ``[B, L, D]`` plus its feed-forward."""
        mixed = self.feed_forward(self.norm_feed_forward(hidden), train=train)
        return hidden + self.dropout(mixed, deterministic=not train)


class Approximator(nn.Module):
    """The parts of an approximator: the target's signal, blocks, and a last norm.

    Attributes:
      num_steps: T.
      width: D.
      num_layers: blocks.
      num_heads, hidden_width, cross_attention, activation, dropout_rate, dtype: as in ``ReadingBlock``.
      visibility, scale: of the target's signal, see ``TargetSignal``.
      self_conditioning: whether the previous estimate of x_0 is added to the signal, through a dense layer
        that starts at 0 (Chen et al. 2023, arXiv 2208.04202).
    """

    block: ClassVar[type[ReadingBlock]]

    num_steps: int
    width: int
    num_layers: int
    num_heads: int
    hidden_width: int
    cross_attention: CrossAttentionForm = "none"
    activation: Activation = "gelu"
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32
    visibility: Visibility = "uncertain"
    scale: float = 0.001
    self_conditioning: bool = False

    def setup(self):
        self.signal = TargetSignal(self.num_steps, self.width, self.visibility, self.scale)
        if self.self_conditioning:
            self.estimate = nn.Dense(self.width, kernel_init=nn.initializers.zeros)
        self.blocks = [
            self.block(
                width=self.width,
                num_heads=self.num_heads,
                hidden_width=self.hidden_width,
                cross_attention=self.cross_attention,
                activation=self.activation,
                dropout_rate=self.dropout_rate,
                dtype=self.dtype,
                **self.block_options(),
                name=f"block_{index}",
            )
            for index in range(self.num_layers)
        ]
        self.norm = nn.LayerNorm()

    def block_options(self) -> dict[str, Any]:
        """What the blocks of this approximator are told besides."""
        return {}

    def seen(
        self, embedded_steps: Array, x_t: Array, t: Array, normal: Array | None, previous: Array | None
    ) -> Array:
        """What is seen of the noised target and, with ``self_conditioning``, of the previous estimate.

        Arguments and shape are those of ``TargetSignal``; ``previous`` is ``[B, N, D]``.
        """
        signal = self.signal(embedded_steps, x_t, t, normal)
        return signal + self.estimate(previous) if self.self_conditioning else signal


__all__ = ["Approximator", "ReadingBlock"]
