"""The interface of attention: masks, providers of attention weights, and the layer that mixes values with them.

A *provider* is a Linen module called as ``provider(query, key, mask, train=...)`` that returns an
``AttentionOutput``. Dot product, refined, VAE and diffusion attention are interchangeable: the layer
``MultiHeadAttention`` owns the values, the mixing, the dropout and the output projection, and never
looks inside its provider. ``query`` and ``key`` are the *inputs* of the block (not yet projected), so
that a provider without queries and keys wastes nothing; for self-attention they are the same object.
"""

from typing import Any, ClassVar, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec.batch import PADDING_ID
from jaxrec.devices.products import dense_general
from jaxrec.nn.dropout import Dropout
from jaxrec.typing import Array, Dtype


class AttentionOutput(NamedTuple):
    """What a provider returns.

    Attributes:
      weights: ``[B, H, L, M]`` float32; each row sums to 1 over the allowed keys, is exactly 0 on the
        others, and is all 0 where no key is allowed.
      logits: ``[B, H, L, M]`` float32, the scores before mask and softmax.
      penalties: named ``[B, L]`` float32 terms of the training loss (a KL divergence, say), one number a
        position; the recommender weighs each with a coefficient of the same name.
      mixed: ``[B, L, H, C]``, from a provider that was given the values and mixes them itself: then there are
        neither weights nor logits.
    """

    weights: Array | None
    logits: Array | None
    penalties: dict[str, Array]
    mixed: Array | None = None


def attention_mask(items: Array, *, causal: bool) -> Array:
    """Which position may attend to which: ``[B, 1, L, L]`` bool, from ``items`` ``[B, L]``.

    Padded positions are neither attended to nor attend to anything.
    """
    real = items != PADDING_ID
    mask = real[:, None, :, None] & real[:, None, None, :]
    if causal:
        length = items.shape[-1]
        mask &= jnp.tril(jnp.ones((length, length), bool))
    return mask


def masked_softmax(logits: Array, mask: Array) -> Array:
    """Softmax in float32 over the allowed keys of the last axis; zeros where none is allowed.

    Args:
      logits: ``[B, H, L, M]``.
      mask: bool, broadcastable to ``logits``.
    """
    logits = jnp.where(mask, logits.astype(jnp.float32), -jnp.inf)
    peak = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    exponentials = jnp.where(mask, jnp.exp(jnp.where(mask, logits - peak, 0.0)), 0.0)
    total = jnp.sum(exponentials, axis=-1, keepdims=True)
    return exponentials / jnp.where(total == 0.0, 1.0, total)


def fused_mix(queries: Array, keys: Array, values: Array, mask: Array) -> Array:
    """softmax(Q Kᵀ / √C) V in one operation; zeros where no key is allowed.

    On an NVIDIA GPU (Ampere or newer), in half precision, it is cuDNN's flash attention, which never holds
    ``[B, H, L, M]``; elsewhere XLA's own (``jax.nn.dot_product_attention``).

    Args:
      queries: ``[B, L, H, C]``.
      keys, values: ``[B, M, H, C]``.
      mask: bool ``[B, 1, L, M]``.
    """
    implementation = "cudnn" if _flash_attention_takes(queries, keys) else "xla"
    mixed = jax.nn.dot_product_attention(queries, keys, values, mask=mask, implementation=implementation)
    return jnp.where(jnp.any(mask[:, 0], axis=-1)[..., None, None], mixed, 0)


def _flash_attention_takes(queries: Array, keys: Array) -> bool:
    """Whether the device is an NVIDIA GPU of compute capability 8 or more, and cuDNN has a kernel for these arrays."""
    device = jax.devices()[0]
    nvidia = "nvidia" in device.device_kind.lower() and float(getattr(device, "compute_capability", 0)) >= 8.0
    half = queries.dtype.itemsize == 2
    even = queries.shape[1] % 2 == 0 and keys.shape[1] % 2 == 0
    return half and nvidia and even and queries.shape[-1] % 8 == 0 and queries.shape[-1] <= 128


class DotProduct(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1): softmax(Q Kᵀ / √C).

    Attributes:
      num_heads: H; the layer fills it in.
      dtype: type of the projections and the product; softmax is float32.
      fused: whether the values are mixed in one operation with the softmax (see ``fused_mix``) where the weights
        themselves are not needed: for long histories on a GPU.
    """

    num_heads: int | None = None
    dtype: Dtype = jnp.float32
    fused: bool = False

    last_query: ClassVar[bool] = True  # may be asked for the newest positions only

    @nn.compact
    def __call__(
        self, query: Array, key: Array, mask: Array, *, train: bool, values: Array | None = None
    ) -> AttentionOutput:
        """Weights from ``query`` ``[B, L, D]``, ``key`` ``[B, M, D]``, ``mask`` ``[B, 1, L, M]``.

        With ``values`` ``[B, M, H, C]`` they are mixed, and no weights are made.
        """
        del train
        width = query.shape[-1]
        heads = (self.num_heads, width // self.num_heads)
        queries = dense_general(heads, dtype=self.dtype, name="query")(query)
        keys = dense_general(heads, dtype=self.dtype, name="key")(key)
        if values is not None:
            return AttentionOutput(None, None, {}, fused_mix(queries, keys, values, mask))
        logits = jnp.einsum("blhc,bmhc->bhlm", queries, keys, preferred_element_type=jnp.float32)
        logits /= jnp.sqrt(jnp.float32(heads[1]))
        return AttentionOutput(masked_softmax(logits, mask), logits, {})


class MultiHeadAttention(nn.Module):
    """Mixes projected values with the weights of a provider: concat_h(A_h V_h) W_O.

    Attributes:
      provider: template of the attention provider; cloned, so that layers never share parameters.
      num_heads: H.
      dropout_rate: dropout on the attention weights, in training.
      dtype: compute type of projections and mixing.
    """

    provider: nn.Module
    num_heads: int
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, query: Array, key: Array, mask: Array, *, train: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Returns the mixed values ``[B, L, D]`` and the provider's penalties.

        With ``mutable=["intermediates"]`` the weights are captured as ``attention_weights``.
        """
        width = query.shape[-1]
        chex.assert_is_divisible(width, self.num_heads)
        heads = (self.num_heads, width // self.num_heads)
        provider = self.provider.clone(num_heads=self.num_heads, dtype=self.dtype, name="scores", parent=self)
        # Values are not projected in one product with queries and keys, which are the provider's affair: XLA joins
        # small products on GPUs by itself, and on CPUs a joined one was no faster.
        values = dense_general(heads, dtype=self.dtype, name="value")(key)
        output: Any = provider(query, key, mask, train=train, **self._given(values, train=train))
        mixed = output.mixed
        if mixed is None:
            self.sow("intermediates", "attention_weights", output.weights)
            weights = Dropout(self.dropout_rate, deterministic=not train)(output.weights.astype(values.dtype))
            mixed = jnp.einsum("bhlm,bmhc->blhc", weights, values)
        mixed = dense_general(width, axis=(-2, -1), dtype=self.dtype, name="output")(mixed)
        return mixed, output.penalties

    def _given(self, values: Array, *, train: bool) -> dict[str, Array]:
        """The values, for a provider that mixes them itself, unless somebody asks for the weights or they drop out."""
        wanted = self.is_mutable_collection("intermediates") or (train and self.dropout_rate > 0.0)
        return {"values": values} if getattr(self.provider, "fused", False) and not wanted else {}


__all__ = [
    "AttentionOutput",
    "DotProduct",
    "MultiHeadAttention",
    "attention_mask",
    "fused_mix",
    "masked_softmax",
]
