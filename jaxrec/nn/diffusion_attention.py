"""Attention maps drawn by a diffusion process (D-GenAtt: Liu et al. 2025, arXiv 2508.02050)."""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec.devices.products import dense, multiply
from jaxrec.devices.random_bits import row_normal, row_uniform
from jaxrec.diffusion import CosineSchedule, GaussianProcess, Sampler
from jaxrec.nn.attention import AttentionOutput, masked_softmax
from jaxrec.nn.lags import (
    keys_to_profiles,
    place_keys,
    profiles_to_keys,
    real_rows,
    recency_initializer,
    require_length,
)
from jaxrec.nn.prefix import PrefixSummary
from jaxrec.typing import Array, Dtype

DEFAULT_SAMPLER = Sampler(process=GaussianProcess(CosineSchedule(num_steps=10)), kind="ddim")


class RowDenoiser(nn.Module):
    """The clean row from a noised one, for all heads at once: an MLP on [row, condition, step].

    GELU(W_x x_t + condition + e_t), one more layer, and a linear map to the lags of each head.

    Attributes:
      num_steps: T, rows of the table of steps.
      max_length: lags of a full row; tables are made for them and a shorter row reads their end.
      dtype: type of the products.
    """

    num_steps: int
    max_length: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, noised: Array, step: Array, condition: Array) -> Array:
        """The clean row's estimate, shaped like ``noised``, float32.

        Args:
          noised: ``[B, R, H, M]`` profiles, 0 at lags without an item.
          step: int32, a scalar or ``[B]``.
          condition: ``[B, R, W]``, what the denoiser knows of the prefix.
        """
        batch_size, num_rows, num_heads, length = noised.shape
        width = condition.shape[-1]
        shape = (num_heads, self.max_length, width)
        initializer = nn.initializers.lecun_normal(in_axis=(0, 1), out_axis=2)
        reader = self.param("reader", initializer, shape)[:, -length:].reshape(-1, width)
        table = self.param("steps", nn.initializers.normal(1.0), (self.num_steps, width))
        flat = noised.reshape(batch_size, num_rows, -1)
        step = table[step].reshape(-1, 1, width)
        hidden = nn.gelu(multiply(flat, reader, self.dtype) + condition + step.astype(self.dtype))
        hidden = nn.gelu(dense(width, dtype=self.dtype, name="hidden")(hidden))

        initializer = nn.initializers.lecun_normal(in_axis=0, out_axis=(1, 2))
        writer = self.param("writer", initializer, (width, num_heads, self.max_length))[..., -length:]
        written = multiply(hidden, writer.reshape(width, -1), self.dtype)
        return written.reshape(noised.shape).astype(jnp.float32)


class DiffusionAttention(nn.Module):
    """Generates each row of the map by reversing a diffusion, conditioned on the row's prefix.

    Published (figure): initial maps A_0, q(A_t | A_{t-1}) up to A_T and a learned p(A_{t-1} | A_t) back, the
    denoiser conditioned on a global vector and on the step. Not published, so our reading:

    * What is diffused are a row's logits over lags, for all heads; noise is Gaussian, T is small. A learned
      bias over lags, starting at ``-recency`` a lag, is added after the diffusion, before mask and softmax.
    * The denoiser predicts the clean row from [A_t row, PrefixSummary h_i (own input included), t], row by
      row; what does not depend on t is computed once. Lags that reach before the history are kept at 0.
    * Training: one t a sequence, uniform; a reference row is noised to A_t, and the estimate of the clean
      row is the map that is used, so the recommender's own loss trains the denoiser. The reference is the
      blank map 0, or (``reference="self"``) the denoiser's own estimate one step earlier in the reverse
      process, from the blank map noised to t + 1, without gradient.
    * Inference: the sampler from N(0, I), in one scan; the last estimate is the map. The draws come from the
      stream ``diffusion``, each place on its own, so a fixed key gives a fixed map in every length bucket.

    The optional penalty ``"denoising"`` is the mean squared error, over a row's real lags and the heads, of
    the estimate against the reference (against the blank map it merely keeps logits small).

    Attributes:
      sampler: the reverse process; its ``process`` and T serve training too.
      reference: the map that is noised in training: ``self``, the denoiser's own estimate one step earlier, or
        ``blank``, all zeros.
      denoising: whether to give the penalty ``denoising`` (the recommender then needs a coefficient for it).
      hidden_width: width of the denoiser's hidden layers; ``None`` takes the model's width D.
      recency: by how much attention logits fall from one lag to the next in a fresh model; 0 starts without a
        preference for recent items.
      max_length: lags there are; the model sets it.
      num_heads: H; the layer fills it in.
      dtype: type of the products; noise, logits and softmax are float32.

    Raises:
      ValueError: an unknown reference.
    """

    last_query: ClassVar[bool] = True
    stochastic_at_inference: ClassVar[bool] = True

    sampler: Sampler = DEFAULT_SAMPLER
    reference: Literal["self", "blank"] = "self"
    denoising: bool = False
    hidden_width: int | None = None
    recency: float = 0.1
    max_length: int | None = None
    num_heads: int | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        if self.reference not in ("self", "blank"):
            raise ValueError(f"reference is {self.reference!r}, but must be self or blank")
        super().__post_init__()

    @nn.compact
    def __call__(self, query: Array, key: Array, mask: Array, *, train: bool) -> AttentionOutput:
        """Weights of the newest R rows, from ``[B, R, D]``, ``[B, M, D]`` and a mask ``[B, 1, R, M]``."""
        num_rows, num_keys = query.shape[1], key.shape[1]
        max_length = require_length(self.max_length, num_keys, "DiffusionAttention")
        width = self.hidden_width or query.shape[-1]
        summary = PrefixSummary(width, dtype=self.dtype, name="summary")(key, jnp.any(mask[:, 0], axis=1))
        condition = summary[:, -num_rows:]
        real_lags = jnp.moveaxis(keys_to_profiles(mask), 1, 2)

        denoiser = RowDenoiser(self.sampler.process.num_steps, max_length, self.dtype, parent=None)
        blank = jnp.zeros((query.shape[0], num_rows, self.num_heads, num_keys))
        parameters = self.param(
            "denoiser",
            lambda rng: denoiser.init(rng, blank[:1], jnp.zeros((), jnp.int32), condition[:1])["params"],
        )

        def denoise(noised: Array, step: Array) -> Array:
            noised = jnp.where(real_lags, noised, 0.0)
            return denoiser.apply({"params": parameters}, noised, step, condition)

        if train:
            rows, reference = self._estimate(denoise, blank)
        else:
            rows, reference = self._sample(denoise, blank, max_length), blank
        bias = self.param("lag_bias", recency_initializer(self.recency), (self.num_heads, max_length))
        logits = profiles_to_keys(jnp.moveaxis(rows + bias[:, -num_keys:], 1, 2))

        penalties = {}
        if self.denoising:
            errors = jnp.where(real_lags, jnp.square(rows - reference), 0.0)
            lags = jnp.maximum(jnp.sum(real_lags, axis=(-2, -1)), 1)
            error = jnp.sum(errors, axis=(-2, -1)) / (lags * self.num_heads)
            penalties["denoising"] = jnp.where(real_rows(mask), error, 0.0)
        return AttentionOutput(masked_softmax(logits, mask), logits, penalties)

    def _estimate(self, denoise, blank: Array) -> tuple[Array, Array]:
        """One noised reference, denoised: the clean rows and the reference, ``[B, R, H, M]`` each."""
        process = self.sampler.process
        step_key, noise_key, earlier_key = jax.random.split(self.make_rng("diffusion"), 3)
        step = process.draw_steps(step_key, blank.shape[:1], draw=row_uniform)
        reference = blank
        if self.reference == "self":
            earlier = jnp.minimum(step + 1, process.num_steps - 1)
            noised = process.corrupt(blank, earlier, row_normal(earlier_key, blank.shape))
            reference = jax.lax.stop_gradient(denoise(noised, earlier))
        noised = process.corrupt(reference, step, row_normal(noise_key, blank.shape))
        return denoise(noised, step), reference

    def _sample(self, denoise, blank: Array, max_length: int) -> Array:
        """The reverse process over rows of ``max_length`` lags, of which the bucket's are kept."""
        batch_size, num_rows, num_heads, num_keys = blank.shape
        hidden_lags = ((0, 0), (0, 0), (0, 0), (max_length - num_keys, 0))
        shape = (batch_size, num_rows, num_heads, max_length)
        keys = place_keys(self.make_rng("diffusion"), batch_size, num_rows)
        rows = self.sampler.sample(
            lambda noised, step: jnp.pad(denoise(noised[..., -num_keys:], step), hidden_lags), keys, shape
        )
        return rows[..., -num_keys:]


__all__ = ["DEFAULT_SAMPLER", "DiffusionAttention", "RowDenoiser"]
