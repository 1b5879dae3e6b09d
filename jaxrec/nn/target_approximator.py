"""The history-cached approximator: noised targets are the only tokens, the history is read from a cache.

Our faster reading of DiffuRecSys. The history is encoded once, without the target, by a causal transformer;
each block projects it once. Then training estimates the target of every position in one pass, and a
reverse step costs one token instead of L.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.nn.cross_attention import CrossAttention, CrossAttentionForm, Memory
from jaxrec.nn.dropout import Dropout
from jaxrec.nn.encoder import Activation, FeedForward
from jaxrec.nn.target_signal import TargetSignal, Visibility
from jaxrec.typing import Array, Dtype


class TargetBlock(nn.Module):
    """Cross-attention to the history (optional) and feed-forward; pre-norm, the residual stream in float32.

    The self-attention of the per-prefix block falls away: a target sees no other target.

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
    cross_attention: CrossAttentionForm = "softmax"
    activation: Activation = "gelu"
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32

    def setup(self):
        if self.cross_attention != "none":
            self.norm_cross = nn.LayerNorm(dtype=self.dtype)
            self.cross = CrossAttention(
                self.width, self.num_heads, self.cross_attention, self.dropout_rate, self.dtype
            )
        self.norm_feed_forward = nn.LayerNorm(dtype=self.dtype)
        self.feed_forward = FeedForward(self.hidden_width, self.activation, self.dropout_rate, self.dtype)
        self.dropout = Dropout(self.dropout_rate)

    def memory(self, history: Array, mask: Array) -> Memory | None:
        """The history ``[B, M, D]`` as the block reads it under ``mask`` ``[B, 1, N or 1, M]``."""
        return None if self.cross_attention == "none" else self.cross.memory(history, mask)

    def __call__(self, tokens: Array, memory: Memory | None, *, train: bool) -> Array:
        """``tokens`` ``[B, N, D]`` to ``[B, N, D]``."""
        if memory is not None:
            mixed = self.cross(self.norm_cross(tokens), memory, train=train)
            tokens = tokens + self.dropout(mixed, deterministic=not train)
        mixed = self.feed_forward(self.norm_feed_forward(tokens), train=train)
        return tokens + self.dropout(mixed, deterministic=not train)


class TargetContext(NamedTuple):
    """What a reverse process reads at every step.

    Attributes:
      states: ``[B, N, D]`` float32, the history's own state at the position of each target: a prediction
        made without diffusion.
      embedded_steps: d_t of all steps, ``[T, D]``.
      memories: one a block, ``None`` without cross-attention.
    """

    states: Array
    embedded_steps: Array
    memories: list[Memory | None]


class TargetApproximator(nn.Module):
    """x̂_0 of N noised targets a row, from a history that was encoded without them.

    Attributes:
      num_steps: T.
      width: D.
      num_layers: blocks.
      num_heads, hidden_width, cross_attention, activation, dropout_rate, dtype: as in ``TargetBlock``.
      visibility, scale: of the target's signal, see ``TargetSignal``.
      start_from_history: whether a token starts as the history's state plus the signal, so that the
        blocks refine the history's own prediction; without it the token is the signal alone, and as a
        norm follows, ``scale`` then hardly matters.
      self_conditioning: whether the previous estimate of x_0 is added to the token, through a dense layer
        that starts at 0 (Chen et al. 2023, arXiv 2208.04202).
    """

    num_steps: int
    width: int
    num_layers: int
    num_heads: int
    hidden_width: int
    cross_attention: CrossAttentionForm = "softmax"
    activation: Activation = "gelu"
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32
    visibility: Visibility = "uncertain"
    scale: float = 0.001
    start_from_history: bool = True
    self_conditioning: bool = False

    def setup(self):
        self.signal = TargetSignal(self.num_steps, self.width, self.visibility, self.scale)
        if self.self_conditioning:
            self.estimate = nn.Dense(self.width, kernel_init=nn.initializers.zeros)
        self.blocks = [
            TargetBlock(
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
        self.norm = nn.LayerNorm()

    def prepare(self, history: Array, mask: Array, *, last_only: bool) -> TargetContext:
        """Everything that depends on no step.

        Args:
          history: ``[B, L, D]`` float32, encoded causally.
          mask: bool ``[B, 1, L, L]``, the causal mask of the history.
          last_only: whether only the last position has a target (N = 1), or every position (N = L).
        """
        if last_only:
            mask = mask[:, :, -1:]
        memories = [block.memory(history, mask) for block in self.blocks]
        states = history[:, -1:] if last_only else history
        return TargetContext(states, self.signal.embed_steps(), memories)

    def __call__(
        self,
        context: TargetContext,
        x_t: Array,
        t: Array,
        normal: Array | None = None,
        previous: Array | None = None,
        *,
        train: bool,
    ) -> Array:
        """Estimates x_0, ``[B, N, D]`` float32.

        Args:
          context: from ``prepare``.
          x_t: the noised targets, ``[B, N, D]``.
          t: their steps, int32, a scalar or ``[B, N]``.
          normal: standard normal ``[B, N, D]`` for ``visibility="uncertain"``.
          previous: the previous estimates of x_0, ``[B, N, D]``, for ``self_conditioning``.
          train: whether dropout acts.
        """
        tokens = self.signal(context.embedded_steps, x_t, t, normal)
        if self.start_from_history:
            tokens = context.states + tokens
        if self.self_conditioning:
            tokens = tokens + self.estimate(previous)
        for block, memory in zip(self.blocks, context.memories, strict=True):
            tokens = block(tokens, memory, train=train)
        return self.norm(tokens.astype(jnp.float32))


__all__ = ["TargetApproximator", "TargetBlock", "TargetContext"]
