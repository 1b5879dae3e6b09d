"""Refined attention: attention paid to the attention weights (AWRSR: Liu, Liu, Liu, RecSys 2024).

The paper (arXiv 2410.21048) names four mechanisms, simple, value-weighted, additive and stochastic; its
equations could not be had, so those below are our reading. A are the weights of the base attention.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.nn.attention import AttentionOutput, DotProduct, masked_softmax
from jaxrec.nn.lags import configure, keys_to_profiles, profiles_to_keys, require_length
from jaxrec.nn.stochastic import Gaussian, WassersteinScores, pairwise_wasserstein, positive
from jaxrec.typing import Array, Dtype

Mechanism = Literal["simple", "value_weighted", "additive", "stochastic"]
Coordinates = Literal["lags", "places"]


class Refined(nn.Module):
    """Refines the weights A of a base attention with learned matrices U ``[max_length, max_length]``.

        simple          R = s (A U_q)(A U_k)ᵀ / √max_length       P = softmax(R)
        value_weighted  P as in simple, then P (A |U_v|), masked, each row divided by its sum
        additive        R as in simple                            P = softmax(S + R)
        stochastic      row i of A is a Gaussian, m = A U_m, c = ELU(A U_c) + 1,
                        R = −s W₂²(row i, row j) / √max_length    P = softmax(R)

    each under the mask; S are the base's scores. What our reading adds to the names of the mechanisms:

    * U acts on *lags* (default): in row i every slot is counted back from place i, in A_i and in the A_j it
      is compared with, so that U = I gives A Aᵀ, and moving a history changes nothing. The stochastic
      Gaussians are each in their own row's lags. ``coordinates="places"`` counts slots from the
      end of the sequence instead; it is cheaper, and serves masks that are not causal, which lags do not.
    * s is one learned factor a head, since products of weights are small numbers. It starts at
      ``initial_scale``; 1 is the bare formula. The divisor is √max_length, not √L: a bucket changes nothing.
    * |U_v| keeps the value-weighted rows distributions.
    * The parameters are U − I, so that weight decay draws U to the identity and not to nothing.
    * (A U_q)(A U_k)ᵀ is computed as A (U_q U_kᵀ) Aᵀ.

    A covers items up to its row only, and the mask is applied again, so no row sees a later item.

    Attributes:
      base: template of the attention that is refined; ``DotProduct()``, ``WassersteinScores()`` or another.
      mechanism: how A becomes P: ``simple``, ``value_weighted``, ``additive`` or ``stochastic`` (formulas in the
        class's docstring); ``stochastic`` needs ``WassersteinScores`` as its base.
      coordinates: what the rows of U stand for: ``lags`` behind each position, or ``places`` counted from the end of
        the sequence (cheaper).
      initial_scale: value of s, the learned factor of R, in a fresh model.
      initial_noise: standard deviation of U − I in a fresh model.
      max_length: size of the matrices; the model sets it.
      num_heads: H; the layer fills it in.
      dtype: type of the products; scores and softmax are float32.

    Raises:
      ValueError: an unknown mechanism or coordinates, or ``stochastic`` over another base.
    """

    base: nn.Module = DotProduct()
    mechanism: Mechanism = "additive"
    coordinates: Coordinates = "lags"
    initial_scale: float = 1.0
    initial_noise: float = 0.01
    max_length: int | None = None
    num_heads: int | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        if self.mechanism not in ("simple", "value_weighted", "additive", "stochastic"):
            raise ValueError(
                f"mechanism is {self.mechanism!r}, but must be simple, value_weighted, additive or stochastic"
            )
        if self.coordinates not in ("lags", "places"):
            raise ValueError(f"coordinates is {self.coordinates!r}, but must be lags or places")
        if self.mechanism == "stochastic" and not isinstance(self.base, WassersteinScores):
            raise ValueError(
                "the stochastic mechanism refines WassersteinScores only, but its base is "
                f"{type(self.base).__name__}"
            )
        super().__post_init__()

    @property
    def reads_gaussians(self) -> bool:
        """As its base does."""
        return getattr(self.base, "reads_gaussians", False)

    @property
    def target_positions(self) -> str:
        """As the base says."""
        return getattr(self.base, "target_positions", "all")

    @property
    def stochastic_at_inference(self) -> bool:
        """As the base says."""
        return getattr(self.base, "stochastic_at_inference", False)

    def drawing(self) -> "Refined":
        """With a base that draws at inference, if it can."""
        draws = getattr(self.base, "drawing", None)
        return self if draws is None else self.clone(base=draws())

    @property
    def diagnose(self) -> Callable[..., dict[str, Array]] | None:
        """What the log says of the base, if anything."""
        return getattr(self.base, "diagnose", None)

    @nn.compact
    def __call__(self, query, key, mask: Array, *, train: bool) -> AttentionOutput:
        """Weights from block inputs as the base takes them, and ``mask`` ``[B, 1, L, L]``."""
        length = mask.shape[-1]
        max_length = require_length(self.max_length, length, "Refined")
        if mask.shape[-2] != length:
            raise ValueError(f"Refined compares whole rows and needs a square map, got {mask.shape[-2:]}")
        shared = {"num_heads": self.num_heads, "dtype": self.dtype, "max_length": max_length}
        base = configure(self.base, **shared, name="scores", parent=self)(query, key, mask, train=train)

        scale = self.param("scale", nn.initializers.constant(self.initial_scale), (base.weights.shape[1],))
        scale = scale[:, None, None] / jnp.sqrt(jnp.float32(max_length))
        weights = base.weights.astype(self.dtype)
        if self.mechanism == "stochastic":
            logits = -scale * self._row_distances(weights, max_length)
        else:
            logits = scale * self._row_products(weights, max_length)
        if self.mechanism == "additive":
            logits = base.logits + logits
        refined = masked_softmax(logits, mask)
        if self.mechanism == "value_weighted":
            refined = self._weigh_values(refined, weights, mask, max_length)
        return AttentionOutput(refined, logits, base.penalties)

    def _matrix(self, name: str, max_length: int) -> Array:
        shape = (max_length, max_length)
        return jnp.eye(max_length) + self.param(name, nn.initializers.normal(self.initial_noise), shape)

    def _map(self, weights: Array, matrix: Array) -> Array:
        """Rows times a matrix ``[L, L]``, each row in its own coordinates: ``[B, H, L, L]``."""
        matrix = matrix.astype(self.dtype)
        if self.coordinates == "places":
            return weights @ matrix
        return profiles_to_keys(keys_to_profiles(weights) @ matrix)

    def _row_products(self, weights: Array, max_length: int) -> Array:
        """A (U_q U_kᵀ) Aᵀ: ``[B, H, L, L]`` float32."""
        length = weights.shape[-1]
        product = self._matrix("deviation_query", max_length) @ self._matrix("deviation_key", max_length).T
        mapped = self._map(weights, product[-length:, -length:])
        return jnp.einsum("bhin,bhjn->bhij", mapped, weights, preferred_element_type=jnp.float32)

    def _row_distances(self, weights: Array, max_length: int) -> Array:
        """W₂² between the rows as Gaussians over all ``max_length`` slots: ``[B, H, L, L]`` float32."""
        length = weights.shape[-1]
        rows = weights if self.coordinates == "places" else keys_to_profiles(weights)
        rows = jnp.moveaxis(rows, 1, 2)
        mean, covariance = (
            rows @ self._matrix(f"deviation_{name}", max_length)[-length:].astype(self.dtype)
            for name in ("mean", "covariance")
        )
        gaussians = Gaussian(mean, positive(covariance))
        return pairwise_wasserstein(gaussians, gaussians, self.dtype)

    def _weigh_values(self, refined: Array, weights: Array, mask: Array, max_length: int) -> Array:
        """P (A |U_v|), masked and with rows summing to 1: ``[B, H, L, L]`` float32."""
        length = weights.shape[-1]
        matrix = jnp.abs(self._matrix("deviation_value", max_length))[-length:, -length:]
        values = jnp.where(mask, self._map(weights, matrix), jnp.zeros((), self.dtype))
        product = jnp.einsum(
            "bhij,bhjn->bhin", refined.astype(self.dtype), values, preferred_element_type=jnp.float32
        )
        product = jnp.where(mask, product, 0.0)
        total = jnp.sum(product, axis=-1, keepdims=True)
        return product / jnp.where(total == 0.0, 1.0, total)


__all__ = ["Coordinates", "Mechanism", "Refined"]
