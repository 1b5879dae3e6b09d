"""The transformer encoder: blocks of attention and feed-forward, whatever the attention is."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec.devices.products import dense
from jaxrec.nn.attention import DotProduct, MultiHeadAttention
from jaxrec.nn.dropout import Dropout
from jaxrec.typing import Array, Dtype

Activation = Literal["relu", "gelu", "silu"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}


class FeedForward(nn.Module):
    """Two dense layers, position by position.

    Attributes:
      hidden_width: width between the two.
      activation: ``relu``, ``gelu`` (tanh form) or ``silu``.
      dropout_rate: dropout after the activation, in training.
      dtype: compute type.
    """

    hidden_width: int
    activation: Activation = "relu"
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, hidden: Array, *, train: bool) -> Array:
        """``[..., D]`` to ``[..., D]``."""
        width = hidden.shape[-1]
        hidden = dense(self.hidden_width, dtype=self.dtype, name="expand")(hidden)
        hidden = ACTIVATIONS[self.activation](hidden)
        hidden = Dropout(self.dropout_rate, deterministic=not train)(hidden)
        return dense(width, dtype=self.dtype, name="contract")(hidden)


class EncoderBlock(nn.Module):
    """Attention and feed-forward, each with dropout, residual and layer norm.

    Attributes:
      attention: template of the attention provider.
      num_heads: H.
      hidden_width: width of the feed-forward's hidden layer.
      dropout_rate: dropout after attention, inside and after the feed-forward, in training.
      attention_dropout_rate: dropout on the attention weights, in training.
      activation: non-linearity of the feed-forward.
      norm_first: norm before each sub-layer (True) or after each residual sum (False).
      dtype: compute type, also of what the norms give; their means and variances are taken in float32.
    """

    attention: nn.Module
    num_heads: int
    hidden_width: int
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    activation: Activation = "relu"
    norm_first: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, hidden: Array, mask: Array, train: bool, last_only: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Maps ``hidden`` ``[B, L, D]`` under ``mask`` ``[B, 1, L, L]``.

        With ``last_only`` the result is ``[B, 1, D]``, the newest position alone; a provider that
        declares ``last_query = True`` is then asked for that row of weights only.

        Returns:
          The new hidden states and the provider's penalties, ``{name: [B, L]}``.
        """
        dropout = Dropout(self.dropout_rate, deterministic=not train)
        attend = MultiHeadAttention(
            self.attention, self.num_heads, self.attention_dropout_rate, self.dtype, name="attention"
        )
        norm_attention = nn.LayerNorm(dtype=self.dtype, name="norm_attention")
        norm_feed_forward = nn.LayerNorm(dtype=self.dtype, name="norm_feed_forward")

        inputs = norm_attention(hidden) if self.norm_first else hidden
        query = inputs
        if last_only:
            hidden = hidden[:, -1:]
            if getattr(self.attention, "last_query", False):
                query, mask = inputs[:, -1:], mask[:, :, -1:]
        mixed, penalties = attend(query, inputs, mask, train=train)
        hidden = hidden + dropout(mixed[:, -1:] if last_only else mixed)
        if not self.norm_first:
            hidden = norm_attention(hidden)

        feed_forward = FeedForward(
            self.hidden_width, self.activation, self.dropout_rate, self.dtype, name="feed_forward"
        )
        inputs = norm_feed_forward(hidden) if self.norm_first else hidden
        hidden = hidden + dropout(feed_forward(inputs, train=train))
        if not self.norm_first:
            hidden = norm_feed_forward(hidden)
        return hidden, penalties


class TransformerEncoder(nn.Module):
    """A stack of blocks and a final norm (SASRec: Kang and McAuley 2018, section III).

    Attributes:
      num_layers: number of blocks, at least 1.
      num_heads: H.
      hidden_width: width of the feed-forward's hidden layer.
      attention: template of the attention provider; every block has its own copy.
      dropout_rate, attention_dropout_rate, activation, norm_first, dtype: as in ``EncoderBlock``.
      rematerialise: recompute each block in the backward pass instead of keeping its activations.
    """

    num_layers: int
    num_heads: int
    hidden_width: int
    attention: nn.Module = DotProduct()
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    activation: Activation = "relu"
    norm_first: bool = True
    dtype: Dtype = jnp.float32
    rematerialise: bool = False

    @nn.compact
    def __call__(
        self, hidden: Array, mask: Array, *, train: bool, last_only: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Encodes ``hidden`` ``[B, L, D]`` under ``mask`` ``[B, 1, L, L]``.

        Returns:
          ``[B, L, D]`` float32 (``[B, 1, D]`` with ``last_only``; the final norm computes in float32), and the
          penalties summed over blocks,
          ``{name: [B, L]}``.
        """
        block_class = EncoderBlock
        if self.rematerialise:
            block_class = nn.remat(EncoderBlock, static_argnums=(3, 4))
        penalties: dict[str, Array] = {}
        for index in range(self.num_layers):
            block = block_class(
                attention=self.attention,
                num_heads=self.num_heads,
                hidden_width=self.hidden_width,
                dropout_rate=self.dropout_rate,
                attention_dropout_rate=self.attention_dropout_rate,
                activation=self.activation,
                norm_first=self.norm_first,
                dtype=self.dtype,
                name=f"block_{index}",
            )
            is_last = last_only and index == self.num_layers - 1
            hidden, terms = block(hidden, mask, train, is_last)
            for name, term in terms.items():
                penalties[name] = penalties[name] + term if name in penalties else term
        hidden = hidden.astype(jnp.float32)
        if self.norm_first:
            hidden = nn.LayerNorm(name="norm")(hidden)
        return hidden, penalties


__all__ = ["ACTIVATIONS", "Activation", "EncoderBlock", "FeedForward", "TransformerEncoder"]
