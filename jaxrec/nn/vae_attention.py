"""Attention maps drawn by a variational auto-encoder (V-GenAtt: Liu et al. 2025, arXiv 2508.02050)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from jaxrec.devices.products import dense, dense_general
from jaxrec.devices.random_bits import row_normal
from jaxrec.diffusion.noise import draw_normal
from jaxrec.nn.attention import AttentionOutput, masked_softmax
from jaxrec.nn.lags import (
    lag_of,
    place_keys,
    profiles_to_keys,
    real_rows,
    recency_initializer,
    require_length,
)
from jaxrec.nn.prefix import PrefixSummary
from jaxrec.typing import Array, Dtype

ACTIVE_VARIANCE = 0.01


def gaussian_kl(mean: Array, log_variance: Array, free_bits: float = 0.0) -> Array:
    """KL(N(μ, σ²) || N(0, 1)) = ½(μ² + σ² − 1 − log σ²), summed over the last axis, in nats.

    Args:
      mean: ``[..., Z]``.
      log_variance: ``[..., Z]``.
      free_bits: nats; each of the Z terms counts at least so much, and below it has no gradient (Kingma et
        al. 2016, arXiv 1606.04934, there for means over a batch; here position by position, so that devices
        and batches do not matter).

    Returns:
      ``[...]`` float32.
    """
    mean, log_variance = mean.astype(jnp.float32), log_variance.astype(jnp.float32)
    terms = 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)
    return jnp.sum(jnp.maximum(terms, free_bits), axis=-1)


def active_units(mean: Array, real: Array) -> Array:
    """How many latent units carry information: those whose mean varies by more than 0.01 over the data.

    Burda et al. 2016 (arXiv 1509.00519). All 0 is posterior collapse.

    Args:
      mean: ``[B, L, Z]``, the intermediate ``latent_mean``.
      real: ``[B, L]`` bool, which positions count.

    Returns:
      Scalar int32.
    """
    weights = real.astype(jnp.float32)[..., None]
    total = jnp.maximum(jnp.sum(weights), 1.0)
    average = jnp.sum(mean * weights, axis=(0, 1)) / total
    variance = jnp.sum(jnp.square(mean - average) * weights, axis=(0, 1)) / total
    return jnp.sum(variance > ACTIVE_VARIANCE, dtype=jnp.int32)


class VaeAttention(nn.Module):
    """Generates each row of the map from a latent variable of its prefix; no query, no key.

    Published (figure): a global vector h_g of the sequence, (μ, σ) from an encoder, z = μ + σ ε, a decoder
    trunk shared by the heads, and one generator a head for the L x L map. Not published, so our reading:

        h_i = PrefixSummary(items up to i)            μ_i, log σ_i² = Dense(GELU(h_i))
        z_i = μ_i + σ_i ε in training, μ_i at inference
        row i of head k = softmax over lags of Dense_k(GELU(Dense(z_i))) + b_k

    with b_k over lags, starting at ``-recency`` a lag. The penalty ``"kl"`` is KL(N(μ_i, σ_i²) || N(0, I)).

    ``form="global"`` is the map as drawn: one h_g, that of the newest position, and one z for the whole
    sequence; an embedding of the row's place, counted from the end, is added before the trunk's GELU, and the
    heads give logits over places. Every row then knows the newest item, so only the last position may be
    trained: ``target_positions`` says so, and the penalty stands at the last position.

    With ``content_width`` C the decoder also looks at the items themselves (our addition: logits over lags alone
    treat all items at a lag alike): q_i = Dense(trunk_i), and q_i · Dense(x_j) / √C joins the logit of item j. It
    is still z_i alone that decides what row i looks for.

    Intermediates ``latent_mean`` and ``latent_log_variance`` (``[B, R, Z]``) are sown for ``active_units``.

    Attributes:
      form: ``causal`` draws one latent vector for each row of the map, from the items up to it, and trains all
        positions; ``global`` draws one for the whole sequence, as in the paper's figure, and trains the last position
        only.
      latent_width: Z, the number of units of the latent vector z.
      hidden_width: width of the encoder's and the decoder's hidden layers; ``None`` takes the model's width D.
      recency: by how much attention logits fall from one lag to the next in a fresh model; 0 starts without a
        preference for recent items.
      content_width: C, the width of each head's content term, by which the map also depends on the items themselves
        and not on lags alone; 0 leaves the term out.
      free_bits: KL divergence, in nats, that each latent unit may have at no cost: the penalty counts a unit below it
        as being at it, which keeps units in use; 0 penalises all of it.
      sample_at_inference: draw z at inference too, instead of taking its mean.
      max_length: lags there are; the model sets it.
      num_heads: H; the layer fills it in.
      dtype: type of the products; latent, penalty, logits and softmax are float32.

    Raises:
      ValueError: an unknown form, or a negative width.
    """

    last_query: ClassVar[bool] = True

    form: Literal["causal", "global"] = "causal"
    latent_width: int = 32
    hidden_width: int | None = None
    recency: float = 0.1
    content_width: int = 0
    free_bits: float = 0.0
    sample_at_inference: bool = False
    max_length: int | None = None
    num_heads: int | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        if self.form not in ("causal", "global"):
            raise ValueError(f"form is {self.form!r}, but must be causal or global")
        if self.content_width < 0:
            raise ValueError(f"content_width is {self.content_width}, but must not be negative")
        super().__post_init__()

    @property
    def target_positions(self) -> Literal["all", "last"]:
        """The global form sees the whole sequence and may be trained on its last position only."""
        return "last" if self.form == "global" else "all"

    @property
    def stochastic_at_inference(self) -> bool:
        """Whether the latent variable is drawn at inference."""
        return self.sample_at_inference

    def drawing(self) -> "VaeAttention":
        """The same attention, drawing its latent variable at inference."""
        return self.clone(sample_at_inference=True)

    @staticmethod
    def diagnose(sown: Mapping[str, Any], real: Array) -> dict[str, Array]:
        """What the log says of a layer: ``active_units`` of Z, and ``latent_nats``, the KL of a position.

        Args:
          sown: the intermediates of one module; those of a module that is no ``VaeAttention`` say nothing.
          real: ``[B, L]`` bool, False on padding.
        """
        if "latent_mean" not in sown:
            return {}
        mean, log_variance = sown["latent_mean"][0], sown["latent_log_variance"][0]
        real = real[:, -mean.shape[1] :]
        nats = jnp.where(real, gaussian_kl(mean, log_variance), 0.0)
        return {
            "active_units": active_units(mean, real),
            "latent_nats": jnp.sum(nats) / jnp.maximum(jnp.sum(real), 1),
        }

    @nn.compact
    def __call__(self, query: Array, key: Array, mask: Array, *, train: bool) -> AttentionOutput:
        """Weights of the newest R rows, from ``[B, R, D]``, ``[B, M, D]`` and a mask ``[B, 1, R, M]``."""
        num_rows, num_keys = query.shape[1], key.shape[1]
        max_length = require_length(self.max_length, num_keys, "VaeAttention")
        width = self.hidden_width or query.shape[-1]
        real = jnp.any(mask[:, 0], axis=1)

        summary = PrefixSummary(width, dtype=self.dtype, name="summary")(key, real)
        summary = summary[:, -1:] if self.form == "global" else summary[:, -num_rows:]
        latent, penalty = self._draw_latent(nn.gelu(summary), train)
        if self.form == "global":
            penalty = jnp.pad(penalty, ((0, 0), (num_rows - 1, 0)))
        penalty = jnp.where(real_rows(mask), penalty, 0.0)

        trunk = dense(width, dtype=self.dtype, name="trunk")(latent)
        if self.form == "global":
            places = self.param("places", nn.initializers.normal(1.0), (max_length, width))
            trunk = trunk + places[max_length - num_rows :].astype(self.dtype)
        trunk = nn.gelu(trunk)
        logits = self._generate(trunk, num_rows, num_keys, max_length)
        if self.content_width:
            logits += self._match(trunk, key)
        return AttentionOutput(masked_softmax(logits, mask), logits, {"kl": penalty})

    def _draw_latent(self, hidden: Array, train: bool) -> tuple[Array, Array]:
        """z ``[B, R, Z]`` float32 and its divergence ``[B, R]`` from ``[B, R, W]``."""
        parameters = dense(2 * self.latent_width, dtype=self.dtype, name="posterior")(hidden)
        mean, log_variance = jnp.split(parameters.astype(jnp.float32), 2, axis=-1)
        self.sow("intermediates", "latent_mean", mean)
        self.sow("intermediates", "latent_log_variance", log_variance)
        penalty = gaussian_kl(mean, log_variance, self.free_bits)
        if not (train or self.sample_at_inference):
            return mean, penalty
        key = self.make_rng("latent")
        shape = mean.shape
        noise = row_normal(key, shape) if train else draw_normal(place_keys(key, *shape[:2]), shape)
        return mean + jnp.exp(0.5 * log_variance) * noise, penalty

    def _generate(self, trunk: Array, num_rows: int, num_keys: int, max_length: int) -> Array:
        """Logits ``[B, H, R, M]`` float32 from the trunk ``[B, R, W]``."""
        shape = (trunk.shape[-1], self.num_heads, max_length)
        kernel = self.param("generator", nn.initializers.lecun_normal(in_axis=0, out_axis=(1, 2)), shape)
        bias = self.param("lag_bias", recency_initializer(self.recency), shape[1:])[:, -num_keys:]
        kernel = kernel[..., -num_keys:].astype(self.dtype)
        logits = jnp.einsum("brw,whm->bhrm", trunk, kernel, preferred_element_type=jnp.float32)
        if self.form == "causal":
            return profiles_to_keys(logits + bias[:, None])
        distance = jnp.abs(lag_of(num_rows, num_keys))
        return logits + bias[:, num_keys - 1 - distance]

    def _match(self, trunk: Array, key: Array) -> Array:
        """The content term ``[B, H, R, M]`` float32 of the trunk ``[B, R, W]`` and the items ``[B, M, D]``."""
        heads = (self.num_heads, self.content_width)
        wanted = dense_general(heads, dtype=self.dtype, name="content_query")(trunk)
        # A bias would raise all logits of a row alike.
        offered = dense_general(heads, use_bias=False, dtype=self.dtype, name="content_key")(key)
        logits = jnp.einsum("brhc,bmhc->bhrm", wanted, offered, preferred_element_type=jnp.float32)
        return logits / jnp.sqrt(jnp.float32(self.content_width))


__all__ = ["VaeAttention", "active_units", "gaussian_kl"]
