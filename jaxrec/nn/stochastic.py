"""Items as Gaussians and attention between distributions (STOSA: Fan et al., WWW 2022, arXiv 2201.06035).

Every Gaussian is diagonal: a mean and a covariance (the variances), both ``[..., D]``. What the authors' code
does is followed; layer norms are one for each stream here, where that code shares one between them.
"""

from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.devices.products import dense_general
from jaxrec.nn.attention import AttentionOutput, masked_softmax
from jaxrec.nn.dropout import Dropout
from jaxrec.nn.lags import configure
from jaxrec.typing import Array, Dtype

SMALLEST_VARIANCE = 1e-24


class Gaussian(NamedTuple):
    """A diagonal Gaussian a position.

    Attributes:
      mean: ``[..., D]``.
      covariance: ``[..., D]``, the diagonal, positive.
    """

    mean: Array
    covariance: Array


def positive(hidden: Array) -> Array:
    """ELU + 1: how STOSA makes covariances."""
    return nn.elu(hidden) + 1


def deviation(covariance: Array) -> Array:
    """Standard deviations in float32, with a finite gradient where a variance has underflowed to 0."""
    return jnp.sqrt(jnp.maximum(covariance.astype(jnp.float32), SMALLEST_VARIANCE))


def wasserstein_distance(first: Gaussian, second: Gaussian) -> Array:
    """Squared 2-Wasserstein distance ``||m1 - m2||² + ||√c1 - √c2||²``: ``[...]`` from ``[..., D]``."""
    means = first.mean.astype(jnp.float32) - second.mean.astype(jnp.float32)
    deviations = deviation(first.covariance) - deviation(second.covariance)
    return jnp.sum(jnp.square(means), axis=-1) + jnp.sum(jnp.square(deviations), axis=-1)


def pairwise_wasserstein(first: Gaussian, second: Gaussian, dtype: Dtype = jnp.float32) -> Array:
    """All squared 2-Wasserstein distances, through one matrix product and no ``[.., R, M, C]``.

    With u = [m, √c] it is ``||u||² + ||w||² - 2 u·w``; the norms are of the very numbers that enter the
    product, so that rounding to ``dtype`` keeps distances of equal Gaussians near 0.

    Args:
      first: ``[B, R, H, C]``.
      second: ``[B, M, H, C]``.
      dtype: type of the product's factors; the sum is float32.

    Returns:
      ``[B, H, R, M]`` float32.
    """

    def joined(gaussian: Gaussian) -> Array:
        mean = gaussian.mean.astype(jnp.float32)
        return jnp.concatenate([mean, deviation(gaussian.covariance)], axis=-1).astype(dtype)

    def squares(points: Array) -> Array:
        return jnp.moveaxis(jnp.sum(jnp.square(points.astype(jnp.float32)), axis=-1), 1, -1)

    left, right = joined(first), joined(second)
    products = jnp.einsum("brhc,bmhc->bhrm", left, right, preferred_element_type=jnp.float32)
    return squares(left)[..., :, None] + squares(right)[..., None, :] - 2.0 * products


class WassersteinScores(nn.Module):
    """Attention by distance of distributions: softmax(−W₂²(q, k) / √C) (STOSA).

    Query and key are ``Gaussian``s; each has its own projection of means and of covariances, the latter
    through ELU + 1.

    Attributes:
      num_heads: H; the layer fills it in.
      dtype: type of the projections and the product; distances and softmax are float32.
    """

    last_query: ClassVar[bool] = True
    reads_gaussians: ClassVar[bool] = True

    num_heads: int | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, query: Gaussian, key: Gaussian, mask: Array, *, train: bool) -> AttentionOutput:
        """Weights from Gaussians ``[B, R, D]`` and ``[B, M, D]`` under a mask ``[B, 1, R, M]``."""
        del train
        heads = (self.num_heads, query.mean.shape[-1] // self.num_heads)

        def project(gaussian: Gaussian, name: str) -> Gaussian:
            mean = dense_general(heads, dtype=self.dtype, name=f"mean_{name}")(gaussian.mean)
            covariance = dense_general(heads, dtype=self.dtype, name=f"covariance_{name}")(
                gaussian.covariance
            )
            return Gaussian(mean, positive(covariance))

        distances = pairwise_wasserstein(project(query, "query"), project(key, "key"), self.dtype)
        logits = -distances / jnp.sqrt(jnp.float32(heads[1]))
        return AttentionOutput(masked_softmax(logits, mask), logits, {})


class DistributionalAttention(nn.Module):
    """Mixes Gaussian values: means by P, covariances by P∘P, each projected out (STOSA).

    Attributes:
      provider: template of the attention provider over Gaussians; cloned.
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
        self, query: Gaussian, key: Gaussian, mask: Array, *, train: bool
    ) -> tuple[Gaussian, dict[str, Array]]:
        """Returns the mixed values, ``[B, R, D]`` each, and the provider's penalties.

        With ``mutable=["intermediates"]`` the weights are captured as ``attention_weights``.
        """
        width = query.mean.shape[-1]
        heads = (self.num_heads, width // self.num_heads)
        shared = {"num_heads": self.num_heads, "dtype": self.dtype}
        provider = configure(self.provider, **shared, name="scores", parent=self)
        output = provider(query, key, mask, train=train)
        self.sow("intermediates", "attention_weights", output.weights)

        def mix(weights: Array, values: Array, name: str) -> Array:
            mixed = jnp.einsum("bhrm,bmhc->brhc", weights, values)
            return dense_general(width, axis=(-2, -1), dtype=self.dtype, name=name)(mixed)

        means = dense_general(heads, dtype=self.dtype, name="mean_value")(key.mean)
        covariances = positive(
            dense_general(heads, dtype=self.dtype, name="covariance_value")(key.covariance)
        )
        weights = Dropout(self.dropout_rate, deterministic=not train)(output.weights.astype(means.dtype))
        mean = mix(weights, means, "mean_output")
        covariance = mix(jnp.square(weights), covariances, "covariance_output")
        return Gaussian(mean, covariance), output.penalties


__all__ = [
    "DistributionalAttention",
    "Gaussian",
    "WassersteinScores",
    "deviation",
    "pairwise_wasserstein",
    "positive",
    "wasserstein_distance",
]
