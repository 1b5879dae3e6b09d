"""The per-prefix approximator of DiffuRec and DiffuRecSys: a transformer over the history's positions.

Every position carries its item's embedding plus a trace of the noised target, so one pass gives the
estimate of one target: the last position's state.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.nn.cross_attention import (
    CrossAttention,
    CrossAttentionForm,
    Memory,
    dot_product_mix,
    merge_heads,
    split_heads,
)
from jaxrec.nn.dropout import Dropout
from jaxrec.nn.encoder import Activation, FeedForward
from jaxrec.nn.target_signal import TargetSignal, Visibility
from jaxrec.typing import Array, Dtype


class FusedSelfAttention(nn.Module):
    """Dot-product self-attention whose queries, keys and values are one matrix product.

    Attributes:
      num_heads: H.
      dropout_rate: on the weights, in training.
      dtype: compute type.
    """

    num_heads: int
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, hidden: Array, mask: Array, *, train: bool, last_only: bool = False) -> Array:
        """Maps ``hidden`` ``[B, L, D]`` under ``mask`` ``[B, 1, 1, L]``; ``[B, 1, D]`` with ``last_only``."""
        width = hidden.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (width, 3 * width)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (3 * width,)).astype(self.dtype)
        hidden = hidden.astype(self.dtype)
        if last_only:
            queries = hidden[:, -1:] @ kernel[:, :width] + bias[:width]
            keys, values = jnp.split(hidden @ kernel[:, width:] + bias[width:], 2, axis=-1)
        else:
            queries, keys, values = jnp.split(hidden @ kernel + bias, 3, axis=-1)
        queries, keys, values = (split_heads(part, self.num_heads) for part in (queries, keys, values))
        queries = queries * jnp.asarray((width // self.num_heads) ** -0.5, self.dtype)
        dropout = Dropout(self.dropout_rate, deterministic=not train)
        mixed = dot_product_mix(queries, keys, values, mask, dropout)
        return nn.Dense(width, dtype=self.dtype, name="output")(merge_heads(mixed))


class ApproximatorBlock(nn.Module):
    """Cross-attention to the clean history (optional), self-attention, feed-forward; pre-norm.

    Dropout follows every sub-layer and the block itself, as in DiffuRec's code. The residual stream is
    float32 whatever ``dtype`` is: in bfloat16 a signal of λ = 0.001 would be rounded away.

    Attributes:
      width: D.
      num_heads: H.
      hidden_width: of the feed-forward.
      cross_attention: ``"none"``, ``"softmax"`` or ``"linear"``.
      activation: of the feed-forward.
      dropout_rate: everywhere in the block, in training.
      dtype: compute type.
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
            self.norm_cross = nn.LayerNorm(dtype=self.dtype)
            self.cross = CrossAttention(
                self.width, self.num_heads, self.cross_attention, self.dropout_rate, self.dtype
            )
        self.norm_attention = nn.LayerNorm(dtype=self.dtype)
        self.attention = FusedSelfAttention(self.num_heads, self.dropout_rate, self.dtype)
        self.norm_feed_forward = nn.LayerNorm(dtype=self.dtype)
        self.feed_forward = FeedForward(self.hidden_width, self.activation, self.dropout_rate, self.dtype)
        self.dropout = Dropout(self.dropout_rate)

    def memory(self, history: Array, mask: Array) -> Memory | None:
        """What the block keeps of the clean history ``[B, L, D]``; ``None`` without cross-attention."""
        return None if self.cross_attention == "none" else self.cross.memory(history, mask)

    def __call__(
        self, hidden: Array, mask: Array, memory: Memory | None, *, train: bool, last_only: bool
    ) -> Array:
        """``hidden`` ``[B, L, D]`` under ``mask`` ``[B, 1, 1, L]``; ``[B, 1, D]`` with ``last_only``."""
        if memory is not None:
            mixed = self.cross(self.norm_cross(hidden), memory, train=train)
            hidden = hidden + self.dropout(mixed, deterministic=not train)
        mixed = self.attention(self.norm_attention(hidden), mask, train=train, last_only=last_only)
        hidden = (hidden[:, -1:] if last_only else hidden) + self.dropout(mixed, deterministic=not train)
        mixed = self.feed_forward(self.norm_feed_forward(hidden), train=train)
        hidden = hidden + self.dropout(mixed, deterministic=not train)
        return self.dropout(hidden, deterministic=not train)


class PrefixContext(NamedTuple):
    """What a reverse process reads at every step.

    Attributes:
      history: e, ``[B, L, D]`` float32.
      mask: bool ``[B, 1, 1, L]``, True at items.
      embedded_steps: d_t of all steps, ``[T, D]``.
      memories: one a block, ``None`` without cross-attention.
    """

    history: Array
    mask: Array
    embedded_steps: Array
    memories: list[Memory | None]


class PrefixApproximator(nn.Module):
    """x̂_0 = the last state of a bidirectional transformer over Z = e + S ∘ (x_t + d_t) (DiffuRec).

    Without cross-attention this is DiffuRec's approximator. With it, every block first reads the clean
    history e (DiffuRecSys, Zolghadr et al. 2024: queries from the noised target and the step, keys and
    values from the history, then self-attention and feed-forward; blocks chained, padding masked: our
    reading). The last block works out its last position only.

    Attributes:
      num_steps: T.
      width: D.
      num_layers: blocks.
      num_heads, hidden_width, cross_attention, activation, dropout_rate, dtype: as in ``ApproximatorBlock``.
      visibility, scale: of the target's signal, see ``TargetSignal``.
      self_conditioning: whether the previous estimate of x_0 is added to Z, through a dense layer that
        starts at 0 (Chen et al. 2023, arXiv 2208.04202).
    """

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
            ApproximatorBlock(
                width=self.width,
                num_heads=self.num_heads,
                hidden_width=self.hidden_width,
                cross_attention=self.cross_attention,
                activation=self.activation,
                dropout_rate=self.dropout_rate,
                dtype=self.dtype,
                name=f"block_{index}",
            )
            for index in range(self.num_layers)
        ]
        self.dropout = Dropout(self.dropout_rate)
        self.norm = nn.LayerNorm()

    def prepare(self, history: Array, mask: Array) -> PrefixContext:
        """Everything that depends on no step, from e ``[B, L, D]`` and ``mask`` ``[B, 1, 1, L]``."""
        memories = [block.memory(history, mask) for block in self.blocks]
        return PrefixContext(history, mask, self.signal.embed_steps(), memories)

    def __call__(
        self,
        context: PrefixContext,
        x_t: Array,
        t: Array,
        normal: Array | None = None,
        previous: Array | None = None,
        *,
        train: bool,
    ) -> Array:
        """Estimates x_0, ``[B, 1, D]`` float32.

        Args:
          context: from ``prepare``.
          x_t: the noised target, ``[B, 1, D]``.
          t: its step, int32, a scalar or ``[B, 1]``.
          normal: standard normal ``[B, L, D]`` for ``visibility="uncertain"``.
          previous: the previous estimate of x_0, ``[B, 1, D]``, for ``self_conditioning``.
          train: whether dropout acts.
        """
        hidden = context.history + self.signal(context.embedded_steps, x_t, t, normal)
        if self.self_conditioning:
            hidden = hidden + self.estimate(previous)
        for index, (block, memory) in enumerate(zip(self.blocks, context.memories, strict=True)):
            last_only = index == self.num_layers - 1
            hidden = block(hidden, context.mask, memory, train=train, last_only=last_only)
        return self.norm(self.dropout(hidden.astype(jnp.float32), deterministic=not train))


__all__ = [
    "ApproximatorBlock",
    "FusedSelfAttention",
    "PrefixApproximator",
    "PrefixContext",
]
