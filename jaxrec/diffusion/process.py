"""The Gaussian diffusion process: corruption, posterior, and the three ways to name the same prediction.

x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε. Steps t run from 0 to T − 1. ``t`` may be a scalar or an array; its axes
are the leading axes of ``x``, of any shape (item vectors ``[B, D]``, attention logits ``[B, L, H*lags]``).
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.diffusion.noise import Draw
from jaxrec.diffusion.schedule import Schedule, TruncatedLinearSchedule
from jaxrec.typing import Array, PRNGKey

Prediction = Literal["x0", "noise", "velocity"]
"""What a network's output means: the clean x_0, the noise ε, or v = √ᾱ ε − √(1 − ᾱ) x_0."""


@dataclasses.dataclass(frozen=True)
class GaussianProcess:
    """q(x_t | x_0), q(x_s | x_t, x_0) for s < t, and conversions (Ho et al. 2020; Salimans and Ho 2022).

    Attributes:
      schedule: gives ᾱ.
    """

    schedule: Schedule = dataclasses.field(default_factory=TruncatedLinearSchedule)

    @property
    def num_steps(self) -> int:
        """T."""
        return self.schedule.num_steps

    def signal_and_noise(self, t: Array | int, ndim: int) -> tuple[Array, Array]:
        """(√ᾱ_t, √(1 − ᾱ_t)), float32, of ``t``'s shape followed by ones up to ``ndim`` axes."""
        alpha_bars = self.schedule.exact_alpha_bars()
        t = jnp.asarray(t)
        shape = t.shape + (1,) * (ndim - t.ndim)
        signal = jnp.asarray(np.sqrt(alpha_bars).astype(np.float32))[t]
        noise = jnp.asarray(np.sqrt(1.0 - alpha_bars).astype(np.float32))[t]
        return signal.reshape(shape), noise.reshape(shape)

    def corrupt(self, x0: Array, t: Array | int, noise: Array) -> Array:
        """x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε, of the shape of ``x0``."""
        signal, spread = self.signal_and_noise(t, x0.ndim)
        return signal * x0 + spread * noise

    def posterior(self, x0: Array, x_t: Array, t: int, previous: int | None = None) -> tuple[Array, float]:
        """Mean and variance of q(x_s | x_t, x_0), s = ``previous``, by default t − 1.

        s = −1 is the clean end: there the mean is ``x0`` and the variance 0.

        Args:
          x0: any shape.
          x_t: the same shape.
          t: a Python integer.
          previous: a Python integer, −1 ≤ s < t.
        """
        step = reverse_step(self.schedule, t, t - 1 if previous is None else previous)
        return step.mean_x0 * x0 + step.mean_x_t * x_t, step.posterior_variance

    def noise_from_x0(self, x0: Array, x_t: Array, t: Array | int) -> Array:
        """ε = (x_t − √ᾱ x_0) / √(1 − ᾱ)."""
        signal, spread = self.signal_and_noise(t, x_t.ndim)
        return (x_t - signal * x0) / spread

    def velocity_from_x0(self, x0: Array, x_t: Array, t: Array | int) -> Array:
        """v = √ᾱ ε − √(1 − ᾱ) x_0 = (√ᾱ x_t − x_0) / √(1 − ᾱ)."""
        signal, spread = self.signal_and_noise(t, x_t.ndim)
        return (signal * x_t - x0) / spread

    def to_x0(self, prediction: Array, x_t: Array, t: Array | int, kind: Prediction) -> Array:
        """x_0 from what a network predicted.

        From the noise, (x_t − √(1 − ᾱ) ε) / √ᾱ, which amplifies errors where ᾱ is small; from the velocity,
        √ᾱ x_t − √(1 − ᾱ) v.

        Raises:
          ValueError: ``kind`` is none of ``"x0"``, ``"noise"``, ``"velocity"``.
        """
        if kind == "x0":
            return prediction
        signal, spread = self.signal_and_noise(t, x_t.ndim)
        if kind == "noise":
            return (x_t - spread * prediction) / signal
        if kind == "velocity":
            return signal * x_t - spread * prediction
        raise ValueError(f"the prediction is {kind!r}, but must be 'x0', 'noise' or 'velocity'")

    def draw_steps(
        self,
        key: PRNGKey,
        shape: tuple[int, ...],
        noise_power: float = 0.0,
        *,
        draw: Draw = jax.random.uniform,
    ) -> Array:
        """Training steps t, int32 of ``shape``, of probability ((t + 1)^(p + 1) − t^(p + 1)) / T^(p + 1).

        p is ``noise_power``: 0 is uniform (DiffuRec); larger powers visit noisy steps more often (our reading).
        ``draw`` gives numbers uniform in [0, 1).
        """
        uniform = draw(key, shape)
        steps = jnp.floor(self.num_steps * uniform ** (1.0 / (1.0 + noise_power)))
        return jnp.minimum(steps.astype(jnp.int32), self.num_steps - 1)


@dataclasses.dataclass(frozen=True)
class ReverseStep:
    """Coefficients of q(x_s | x_t, x_0), float64.

    Attributes:
      mean_x0: coefficient of x_0 in the mean.
      mean_x_t: coefficient of x_t in the mean.
      posterior_variance: β̃ = β_{t|s} (1 − ᾱ_s)/(1 − ᾱ_t).
      beta: β_{t|s} = 1 − ᾱ_t/ᾱ_s; β_t when s = t − 1.
    """

    mean_x0: float
    mean_x_t: float
    posterior_variance: float
    beta: float


def reverse_step(schedule: Schedule, t: int, previous: int) -> ReverseStep:
    """The posterior from step ``t`` to the cleaner step ``previous`` (−1 is clean).

    Ho et al. 2020, eq. 7, on the sub-sequence of steps (Nichol and Dhariwal 2021, section 4).

    Raises:
      ValueError: the steps are out of order or of range.
    """
    if not -1 <= previous < t < schedule.num_steps:
        raise ValueError(
            f"no reverse step from {t} to {previous}: needs -1 <= previous < t < {schedule.num_steps}"
        )
    alpha_bars = schedule.exact_alpha_bars()
    noisy, clean = float(alpha_bars[t]), float(alpha_bars[previous]) if previous >= 0 else 1.0
    beta = 1.0 - noisy / clean
    remaining = (1.0 - clean) / (1.0 - noisy)
    return ReverseStep(
        mean_x0=float(np.sqrt(clean)) * beta / (1.0 - noisy),
        mean_x_t=float(np.sqrt(noisy / clean)) * remaining,
        posterior_variance=beta * remaining,
        beta=beta,
    )


__all__ = ["GaussianProcess", "Prediction", "ReverseStep", "reverse_step"]
