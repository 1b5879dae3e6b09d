"""The per-prefix approximator of DiffuRec and DiffuRecSys: a transformer over the history's positions.

Every position carries its item's embedding plus a trace of the noised target, so one pass gives the
estimate of one target: the last position's state.
"""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.devices.products import dense, multiply
from jaxrec.nn.cross_attention import (
    Memory,
    dot_product_mix,
    merge_heads,
    split_heads,
)
from jaxrec.nn.denoising_parts import Approximator, ReadingBlock
from jaxrec.nn.dropout import Dropout
from jaxrec.typing import Array, Dtype


class FusedSelfAttention(nn.Module):
    """Dot-product self-attention whose queries, keys and values are one matrix product.

    Attributes:
      num_heads: H.
      dropout_rate: dropout on the weights, in training.
      dtype: compute type.
    """

    num_heads: int
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, hidden: Array, mask: Array, *, train: bool, last_only: bool = False) -> Array:
        """Maps ``hidden`` ``[B, L, D]`` under ``mask`` ``[B, 1, 1, L]``; ``[B, 1, D]`` with ``last_only``."""
        width = hidden.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (width, 3 * width))
        bias = self.param("bias", nn.initializers.zeros, (3 * width,)).astype(self.dtype)

        def project(inputs: Array, columns: slice) -> Array:
            return multiply(inputs, kernel[:, columns], self.dtype) + bias[columns]

        if last_only:
            queries = project(hidden[:, -1:], slice(width))
            keys, values = jnp.split(project(hidden, slice(width, None)), 2, axis=-1)
        else:
            queries, keys, values = jnp.split(project(hidden, slice(None)), 3, axis=-1)
        queries, keys, values = (split_heads(part, self.num_heads) for part in (queries, keys, values))
        queries = queries * jnp.asarray((width // self.num_heads) ** -0.5, queries.dtype)
        dropout = Dropout(self.dropout_rate, deterministic=not train)
        mixed = dot_product_mix(queries, keys, values, mask, dropout)
        return dense(width, dtype=self.dtype, name="output")(merge_heads(mixed))


class ApproximatorBlock(ReadingBlock):
    """Cross-attention to the clean history (optional), self-attention, feed-forward; see ``ReadingBlock``.

    Dropout follows every sub-layer and the block itself, as in DiffuRec's code.

    Attributes (the others as in ``ReadingBlock``):
      token_queries: whether the block's own tokens, normalised, are the queries of the cross-attention; without it,
        what is seen of the noised target is.
    """

    token_queries: bool = False

    def setup(self):
        super().setup()
        if self.token_queries and self.cross_attention != "none":
            self.norm_cross = nn.LayerNorm(dtype=self.dtype)
        self.norm_attention = nn.LayerNorm(dtype=self.dtype)
        self.attention = FusedSelfAttention(self.num_heads, self.dropout_rate, self.dtype)

    def __call__(
        self, hidden: Array, seen: Array, mask: Array, memory: Memory | None, *, train: bool, last_only: bool
    ) -> Array:
        """``hidden`` ``[B, L, D]`` to the same, or to ``[B, 1, D]`` with ``last_only``.

        Args:
          hidden: the residual stream, ``[B, L, D]`` float32.
          seen: what is seen of the noised target and the step, the queries of the cross-attention (without
            ``token_queries``): ``[B, L, D]``, or ``[B, 1, D]`` where all positions see the same.
          mask: bool ``[B, 1, 1, L]``, True at items.
          memory: the history to be read, if there is cross-attention.
          train: whether dropout acts.
          last_only: whether only the last position is worked out.
        """
        if memory is not None:
            queries = self.norm_cross(hidden) if self.token_queries else seen
            hidden = self.read(hidden, queries, memory, train=train)
        mixed = self.attention(self.norm_attention(hidden), mask, train=train, last_only=last_only)
        hidden = (hidden[:, -1:] if last_only else hidden) + self.dropout(mixed, deterministic=not train)
        return self.dropout(self.feed(hidden, train=train), deterministic=not train)


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


class PrefixApproximator(Approximator):
    """x̂_0 = the last state of a bidirectional transformer over Z = e + S ∘ (x_t + d_t) (DiffuRec).

    Without cross-attention this is DiffuRec's approximator. With it, every block first adds what the noised
    target reads from the clean history e (DiffuRecSys, Zolghadr et al. 2024: queries from S ∘ (x_t + d_t), not
    normalised, keys and values from the history, then self-attention and feed-forward). Our reading: blocks are
    chained, padded keys are masked, the signal is also added to e, as in DiffuRec (in the authors' code it is
    seen by the queries alone), and with self-conditioning the previous estimate is part of it. At λ = 0.001 such
    queries hardly differ from their bias, so that every history is read in the same way; with ``token_queries`` every
    position asks for itself, as in the history-cached form.
    The last block works out its last position only.

    Attributes: see ``Approximator`` and, for ``token_queries``, ``ApproximatorBlock``.
    """

    block: ClassVar = ApproximatorBlock

    token_queries: bool = False

    def setup(self):
        super().setup()
        self.dropout = Dropout(self.dropout_rate)

    def block_options(self) -> dict[str, Any]:
        """Where the queries come from."""
        return {"token_queries": self.token_queries}

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
          context: what ``prepare`` gives.
          x_t: the noised target, ``[B, 1, D]``.
          t: its step, int32, a scalar or ``[B, 1]``.
          normal: standard normal ``[B, L, D]`` for ``visibility="uncertain"``.
          previous: the previous estimate of x_0, ``[B, 1, D]``, for ``self_conditioning``.
          train: whether dropout acts.
        """
        seen = self.seen(context.embedded_steps, x_t, t, normal, previous)
        hidden = context.history + seen
        for index, (block, memory) in enumerate(zip(self.blocks, context.memories, strict=True)):
            last_only = index == self.num_layers - 1
            hidden = block(hidden, seen, context.mask, memory, train=train, last_only=last_only)
        return self.norm(self.dropout(hidden.astype(jnp.float32), deterministic=not train))


__all__ = [
    "ApproximatorBlock",
    "FusedSelfAttention",
    "PrefixApproximator",
    "PrefixContext",
]
