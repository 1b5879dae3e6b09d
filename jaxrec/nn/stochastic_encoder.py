"""The encoder of STOSA: Gaussian inputs and blocks of distributional attention (Fan et al., WWW 2022)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec.devices.products import dense
from jaxrec.nn.dropout import Dropout
from jaxrec.nn.embedding import PositionEmbedding
from jaxrec.nn.stochastic import DistributionalAttention, Gaussian, WassersteinScores, positive
from jaxrec.typing import Array, Dtype


class GaussianInput(nn.Module):
    """What enters the first block: items and places as Gaussians (STOSA's code).

    mean = ELU(dropout(norm(e + p))), covariance = ELU(dropout(norm(e' + p'))) + 1, with places counted from
    the sequence's end.

    Attributes:
      max_length: the longest sequence.
      dropout_rate: dropout in training.
      dtype: type of what is returned.
    """

    max_length: int
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, embedded: Gaussian, *, train: bool) -> Gaussian:
        """From raw item embeddings (``[B, L, D]`` each, the covariance not yet positive) to Gaussians."""

        def stream(raw: Array, name: str) -> Array:
            placed = PositionEmbedding(self.max_length, name=f"{name}_positions")(raw)
            normed = nn.LayerNorm(dtype=self.dtype, name=f"{name}_norm")(placed)
            return Dropout(self.dropout_rate, deterministic=not train)(normed)

        return Gaussian(
            nn.elu(stream(embedded.mean, "mean")), positive(stream(embedded.covariance, "covariance"))
        )


class DistributionalBlock(nn.Module):
    """Attention and feed-forward for both streams, post-norm, the covariances left positive (STOSA's code).

    Attributes:
      attention: template of the attention provider over Gaussians.
      num_heads: H.
      hidden_width: hidden width of the two feed-forward layers.
      dropout_rate: after attention and feed-forward, in training.
      attention_dropout_rate: dropout on the attention weights, in training.
      dtype: compute type.
    """

    attention: nn.Module
    num_heads: int
    hidden_width: int
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, hidden: Gaussian, mask: Array, train: bool, last_only: bool = False
    ) -> tuple[Gaussian, dict[str, Array]]:
        """Maps Gaussians ``[B, L, D]`` under a mask ``[B, 1, L, L]``; to ``[B, 1, D]`` with ``last_only``.

        Returns:
          The new Gaussians and the provider's penalties, ``{name: [B, L]}``.
        """
        attend = DistributionalAttention(
            self.attention, self.num_heads, self.attention_dropout_rate, self.dtype, name="attention"
        )
        query, residual = hidden, hidden
        if last_only:
            residual = jax.tree.map(lambda stream: stream[:, -1:], hidden)
            if getattr(self.attention, "last_query", False):
                query, mask = residual, mask[:, :, -1:]
        mixed, penalties = attend(query, hidden, mask, train=train)
        if last_only:
            mixed = jax.tree.map(lambda stream: stream[:, -1:], mixed)
        dropout = Dropout(self.dropout_rate, deterministic=not train)

        def stream(mixed: Array, residual: Array, name: str) -> Array:
            def norm(stage: str) -> nn.Module:
                return nn.LayerNorm(dtype=self.dtype, name=f"{name}_norm_{stage}")

            attended = norm("attention")(dropout(mixed) + residual)
            expanded = nn.elu(dense(self.hidden_width, dtype=self.dtype, name=f"{name}_expand")(attended))
            contracted = dense(residual.shape[-1], dtype=self.dtype, name=f"{name}_contract")(expanded)
            return norm("feed_forward")(dropout(contracted) + attended)

        mean = stream(mixed.mean, residual.mean, "mean")
        covariance = positive(stream(mixed.covariance, residual.covariance, "covariance"))
        return Gaussian(mean, covariance), penalties


class DistributionalEncoder(nn.Module):
    """A stack of ``DistributionalBlock``s.

    Attributes:
      num_layers: blocks.
      attention: template of the attention provider over Gaussians; every block has its own copy.
      num_heads, hidden_width, dropout_rate, attention_dropout_rate, dtype: as in ``DistributionalBlock``.
    """

    num_layers: int
    num_heads: int
    hidden_width: int
    attention: nn.Module = WassersteinScores()
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, hidden: Gaussian, mask: Array, *, train: bool, last_only: bool = False
    ) -> tuple[Gaussian, dict[str, Array]]:
        """Encodes ``hidden`` (``[B, L, D]`` each) under ``mask`` ``[B, 1, L, L]``.

        Returns:
          Float32 Gaussians, ``[B, L, D]`` each (``[B, 1, D]`` with ``last_only``), and the penalties summed
          over blocks, ``{name: [B, L]}``.
        """
        penalties: dict[str, Array] = {}
        for index in range(self.num_layers):
            block = DistributionalBlock(
                attention=self.attention,
                num_heads=self.num_heads,
                hidden_width=self.hidden_width,
                dropout_rate=self.dropout_rate,
                attention_dropout_rate=self.attention_dropout_rate,
                dtype=self.dtype,
                name=f"block_{index}",
            )
            hidden, terms = block(hidden, mask, train, last_only and index == self.num_layers - 1)
            for name, term in terms.items():
                penalties[name] = penalties[name] + term if name in penalties else term
        return jax.tree.map(lambda stream: stream.astype(jnp.float32), hidden), penalties


__all__ = ["DistributionalBlock", "DistributionalEncoder", "GaussianInput"]
