"""Attention to a memory that is projected once and read many times.

The reverse process of a diffusion recommender reads the same history at every step, so the projection of
keys and values (``memory``) is split from the reading (``__call__``).
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec.devices.products import dense
from jaxrec.nn.attention import masked_softmax
from jaxrec.nn.dropout import Dropout
from jaxrec.typing import Array, Dtype

CrossAttentionForm = Literal["none", "softmax", "linear"]


class Memory(NamedTuple):
    """A history ready to be read, in one of three shapes.

    Attributes:
      keys: ``[B, H, M, C]``; scaled by 1/√C in the softmax form, exponentials in the linear form; ``None``
        where ``context`` says it all.
      values: ``[B, H, M, C]`` or ``None``.
      mask: bool ``[B, 1, L, M]`` or ``[B, 1, 1, M]``: which keys a query may read.
      totals: ``[B, H, L, C]`` float32, linear form under a mask of its own for each query: the sums of
        exponentials that each query may read; else ``None``.
      context: ``[B, H, C, C]`` float32, linear form under one mask for all queries: softmax_M(K)ᵀ V, whose
        size does not depend on M; else ``None``.
    """

    keys: Array | None
    values: Array | None
    mask: Array
    totals: Array | None = None
    context: Array | None = None


def split_heads(projected: Array, num_heads: int) -> Array:
    """``[B, L, D]`` to ``[B, H, L, C]``."""
    batch, length, width = projected.shape
    return projected.reshape(batch, length, num_heads, width // num_heads).transpose(0, 2, 1, 3)


def merge_heads(mixed: Array) -> Array:
    """``[B, H, L, C]`` to ``[B, L, D]``."""
    batch, heads, length, channels = mixed.shape
    return mixed.transpose(0, 2, 1, 3).reshape(batch, length, heads * channels)


def dot_product_mix(
    queries: Array, keys: Array, values: Array, mask: Array, dropout: Callable[[Array], Array]
) -> Array:
    """softmax(Q Kᵀ) V over the allowed keys; zeros where none is allowed.

    Args:
      queries: ``[B, H, L, C]``, already scaled by 1/√C (or the keys are).
      keys: ``[B, H, M, C]``.
      values: ``[B, H, M, C]``.
      mask: bool, broadcastable to ``[B, H, L, M]``.
      dropout: applied to the weights.

    Returns:
      ``[B, H, L, C]`` of the type of ``values``.
    """
    logits = jnp.einsum("bhlc,bhmc->bhlm", queries, keys, preferred_element_type=jnp.float32)
    weights = dropout(masked_softmax(logits, mask).astype(values.dtype))
    return jnp.einsum("bhlm,bhmc->bhlc", weights, values)


LOWEST_EXPONENT = -30.0


class CrossAttention(nn.Module):
    """Multi-head attention from a few tokens to a history, in two forms.

    ``"softmax"``: softmax_M(Q Kᵀ / √C) V. ``"linear"``: softmax_C(Q) (softmax_M(K)ᵀ V), the efficient
    attention of Shen et al. 2021 (arXiv 1812.01243); DiffuRecSys (Zolghadr et al. 2024) uses it. Where each
    query has its own mask (a causal one), its softmax over M runs over the keys that it may read, worked
    out without a C x C state a position (our reading).

    Attributes:
      width: D of the tokens and of the result.
      num_heads: H.
      form: ``"softmax"`` or ``"linear"``.
      dropout_rate: dropout on the attention weights of the softmax form, in training.
      dtype: compute type; softmax and sums are float32.
    """

    width: int
    num_heads: int
    form: Literal["softmax", "linear"] = "softmax"
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32

    def setup(self):
        if self.form not in ("softmax", "linear"):
            raise ValueError(f"the cross-attention is {self.form!r}, but must be 'softmax' or 'linear'")
        self.query = dense(self.width, dtype=self.dtype)
        self.key_value = dense(2 * self.width, dtype=self.dtype)
        self.output = dense(self.width, dtype=self.dtype)
        self.dropout = Dropout(self.dropout_rate)

    def memory(self, history: Array, mask: Array) -> Memory:
        """Projects ``history`` ``[B, M, D]`` for reading under ``mask`` ``[B, 1, L or 1, M]``."""
        keys, values = jnp.split(self.key_value(history), 2, axis=-1)
        keys, values = split_heads(keys, self.num_heads), split_heads(values, self.num_heads)
        if self.form == "softmax":
            return Memory(keys * jnp.asarray(keys.shape[-1] ** -0.5, keys.dtype), values, mask)
        keys, values = keys.astype(jnp.float32), values.astype(jnp.float32)
        readable = jnp.any(mask, axis=2)[..., None]  # [B, 1, M, 1]
        peak = jnp.max(jnp.where(readable, keys, -jnp.inf), axis=2, keepdims=True)
        peak = jax.lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, 0.0))
        # One peak serves a whole row, and a prefix whose keys all lie far below it must not divide by nothing.
        exponentials = jnp.exp(jnp.where(readable, jnp.maximum(keys - peak, LOWEST_EXPONENT), -jnp.inf))
        if mask.shape[2] > 1:
            totals = jnp.einsum("bxlm,bhmc->bhlc", mask.astype(jnp.float32), exponentials)
            return Memory(exponentials, values, mask, totals=totals)
        total = jnp.sum(exponentials, axis=2, keepdims=True)
        weights = exponentials / jnp.where(total == 0.0, 1.0, total)
        return Memory(None, None, mask, context=jnp.einsum("bhmc,bhmd->bhcd", weights, values))

    def __call__(self, tokens: Array, memory: Memory, *, train: bool) -> Array:
        """What ``tokens`` ``[B, L, D]`` read from the memory: ``[B, L, D]``."""
        queries = split_heads(self.query(tokens), self.num_heads)
        if self.form == "softmax":
            dropout = functools.partial(self.dropout, deterministic=not train)
            mixed = dot_product_mix(queries, memory.keys, memory.values, memory.mask, dropout)
            return self.output(merge_heads(mixed))
        queries = jax.nn.softmax(queries.astype(jnp.float32), axis=-1)
        if memory.context is not None:
            mixed = jnp.einsum("bhlc,bhcd->bhld", queries, memory.context)
        else:
            queries = queries / jnp.where(memory.totals == 0.0, 1.0, memory.totals)
            weights = jnp.einsum("bhlc,bhmc->bhlm", queries, memory.keys)
            weights = jnp.where(memory.mask, weights, 0.0)
            mixed = jnp.einsum("bhlm,bhmd->bhld", weights, memory.values)
        return self.output(merge_heads(mixed.astype(self.dtype)))


__all__ = ["CrossAttention", "CrossAttentionForm", "Memory", "dot_product_mix", "merge_heads", "split_heads"]
