"""The history-cached approximator: noised targets are the only tokens, the history is read from a cache.

Our faster reading of DiffuRecSys. The history is encoded once, without the target, by a causal transformer;
each block projects it once. Then training estimates the target of every position in one pass, and a
reverse step costs one token instead of L.
"""

from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.nn.cross_attention import Memory
from jaxrec.nn.denoising_parts import Approximator, ReadingBlock
from jaxrec.typing import Array


class TargetBlock(ReadingBlock):
    """Cross-attention to the history (optional) and feed-forward; see ``ReadingBlock``.

    The self-attention of the per-prefix block falls away: a target sees no other target. The queries are the
    normalised tokens, in which the target may stand beside the history's own prediction.
    """

    def setup(self):
        super().setup()
        if self.cross_attention != "none":
            self.norm_cross = nn.LayerNorm(dtype=self.dtype)

    def __call__(self, tokens: Array, memory: Memory | None, *, train: bool) -> Array:
        """``tokens`` ``[B, N, D]`` to ``[B, N, D]``."""
        if memory is not None:
            tokens = self.read(tokens, self.norm_cross(tokens), memory, train=train)
        return self.feed(tokens, train=train)


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


class TargetApproximator(Approximator):
    """x̂_0 of N noised targets a row, from a history that was encoded without them.

    Attributes (the others as in ``Approximator``):
      start_from_history: whether a token starts as the history's state plus the signal, so that the
        blocks refine the history's own prediction; without it the token is the signal alone, and as a
        norm follows, ``scale`` then hardly matters.
    """

    block: ClassVar = TargetBlock

    start_from_history: bool = True

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
          context: what ``prepare`` gives.
          x_t: the noised targets, ``[B, N, D]``.
          t: their steps, int32, a scalar or ``[B, N]``.
          normal: standard normal ``[B, N, D]`` for ``visibility="uncertain"``.
          previous: the previous estimates of x_0, ``[B, N, D]``, for ``self_conditioning``.
          train: whether dropout acts.
        """
        base = context.states if self.start_from_history else 0.0
        tokens = base + self.seen(context.embedded_steps, x_t, t, normal, previous)
        for block, memory in zip(self.blocks, context.memories, strict=True):
            tokens = block(tokens, memory, train=train)
        return self.norm(tokens.astype(jnp.float32))


__all__ = ["TargetApproximator", "TargetBlock", "TargetContext"]
