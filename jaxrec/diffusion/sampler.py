"""The reverse process: DDPM and DDIM, any number of steps up to T, in one ``lax.scan``.

The sampler takes a function ``denoise(x_t, t) -> x0_hat`` and knows no network. Both kinds are the same
linear recurrence x_s = a x̂_0 + b x_t + σ z, with constants worked out before the loop.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.diffusion.noise import draw_normal, fold_key, split_key
from jaxrec.diffusion.process import GaussianProcess, reverse_step
from jaxrec.typing import Array, PRNGKey

Denoise = Callable[..., Array]
"""``(x_t, t) -> x0_hat``; with self-conditioning ``(x_t, t, previous_x0_hat) -> x0_hat``.

``t`` is a scalar int32, and a denoiser that draws numbers folds it into its own key.
"""


class Coefficients(NamedTuple):
    """x_s = ``x0`` x̂_0 + ``x_t`` x_t + ``spread`` z, one entry a reverse step, noisiest first.

    Attributes:
      timesteps: ``[S]`` int32, falling; the last leads to the clean end.
      x0: ``[S]`` float32.
      x_t: ``[S]`` float32.
      spread: ``[S]`` float32, 0 at the last step.
    """

    timesteps: np.ndarray
    x0: np.ndarray
    x_t: np.ndarray
    spread: np.ndarray


class Trajectory(NamedTuple):
    """Every step of a reverse process, noisiest first.

    Attributes:
      timesteps: ``[S]`` int32.
      x_t: ``[S, *shape]``, what the denoiser was given.
      x0_hat: ``[S, *shape]``, what it answered; the last is the sample.
    """

    timesteps: Array
    x_t: Array
    x0_hat: Array


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Draws x_0 by going back from x_T ~ N(0, I).

    Attributes:
      process: the forward process to be reversed.
      kind: ``"ddpm"`` (Ho et al. 2020) or ``"ddim"`` (Song et al. 2021, arXiv 2010.02502, eq. 12).
      num_steps: reverse steps S, 1 to T, spread evenly over the T steps; ``None`` takes all T.
      variance: DDPM's step variance: ``"beta"`` (β), ``"posterior"`` (β̃), or ``"auto"``: β where all T steps are
        taken, as in DiffuRec, and β̃ where some are left out. The β of a long stride is nearly 1, so that the last steps
        would see far more noise than the forward process has there; with β̃ they see what it has.
      eta: DDIM's share of noise (DDPM wants 0): 0 is deterministic after x_T, 1 is DDPM with the posterior variance.
    """

    process: GaussianProcess = dataclasses.field(default_factory=GaussianProcess)
    kind: Literal["ddpm", "ddim"] = "ddpm"
    num_steps: int | None = None
    variance: Literal["auto", "beta", "posterior"] = "auto"
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("ddpm", "ddim"):
            raise ValueError(f"the sampler's kind is {self.kind!r}, but must be 'ddpm' or 'ddim'")
        if self.variance not in ("auto", "beta", "posterior"):
            raise ValueError(
                f"the sampler's variance is {self.variance!r}, but must be 'auto', 'beta' or 'posterior'"
            )
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"the sampler's eta is {self.eta}, but must lie between 0 and 1")
        if self.kind == "ddpm" and self.eta:
            raise ValueError(
                f"the sampler's eta is {self.eta}, but acts with ddim alone, not with ddpm; leave it at 0"
            )
        if self.kind == "ddim" and self.variance != "auto":
            raise ValueError(
                f"the sampler's variance is {self.variance!r}, but acts with ddpm alone, not with ddim; leave it at"
                " 'auto', and set eta"
            )
        if self.num_steps is not None and not 1 <= self.num_steps <= self.process.num_steps:
            raise ValueError(
                f"the sampler has {self.num_steps} reverse steps (num_steps, a model's num_inference_steps), but must"
                f" have between 1 and the {self.process.num_steps} of its schedule"
            )

    def timesteps(self) -> np.ndarray:
        """The steps visited, ``[S]`` int32, falling from T − 1 to 0 (a single step is T − 1)."""
        total = self.process.num_steps
        return np.rint(np.linspace(total - 1, 0, self.num_steps or total)).astype(np.int32)

    def coefficients(self) -> Coefficients:
        """The recurrence's constants, computed in float64."""
        timesteps = self.timesteps()
        alpha_bars = np.append(self.process.schedule.exact_alpha_bars(), 1.0)  # index -1 is the clean end
        every_step = len(timesteps) == self.process.num_steps
        posterior = self.variance == "posterior" or (self.variance == "auto" and not every_step)
        rows = []
        for t, previous in zip(timesteps, [*timesteps[1:], -1], strict=True):
            step = reverse_step(self.process.schedule, int(t), int(previous))
            if self.kind == "ddpm":
                variance = step.posterior_variance if posterior else step.beta
                rows.append((step.mean_x0, step.mean_x_t, np.sqrt(variance) if previous >= 0 else 0.0))
            else:
                spread = self.eta * np.sqrt(step.posterior_variance)
                direction = np.sqrt(max(1.0 - alpha_bars[previous] - spread**2, 0.0))
                x_t = direction / np.sqrt(1.0 - alpha_bars[t])
                rows.append((np.sqrt(alpha_bars[previous]) - x_t * np.sqrt(alpha_bars[t]), x_t, spread))
        x0, x_t, spread = np.asarray(rows, np.float32).T
        return Coefficients(timesteps, x0, x_t, spread)

    def sample(
        self, denoise: Denoise, key: PRNGKey, shape: tuple[int, ...], *, self_conditioning: bool = False
    ) -> Array:
        """One sample x_0: float32 of ``shape``.

        Args:
          denoise: see ``Denoise``; its answers are taken as float32.
          key: one key, or an array of keys over the leading axes of ``shape`` (one a row: then a row's
            sample does not depend on its batch).
          shape: of x, any.
          self_conditioning: hand the previous x̂_0 (zeros at first) to ``denoise`` as a third argument.
        """
        return self._reverse(denoise, key, shape, self_conditioning, keep=False)[0]

    def trajectory(
        self, denoise: Denoise, key: PRNGKey, shape: tuple[int, ...], *, self_conditioning: bool = False
    ) -> Trajectory:
        """All steps of the same reverse process; arguments as for ``sample``."""
        x_t, x0_hat = self._reverse(denoise, key, shape, self_conditioning, keep=True)[1]
        return Trajectory(jnp.asarray(self.timesteps()), x_t, x0_hat)

    def _reverse(self, denoise: Denoise, key: PRNGKey, shape, self_conditioning: bool, *, keep: bool):
        start_key, noise_key = split_key(key)
        coefficients = self.coefficients()
        noisy = bool(np.any(coefficients.spread > 0))

        def step(carry, constants):
            x_t, previous = carry
            extra = (previous,) if self_conditioning else ()
            x0_hat = denoise(x_t, constants.timesteps, *extra).astype(jnp.float32)
            x_s = constants.x0 * x0_hat + constants.x_t * x_t
            if noisy:
                x_s += constants.spread * draw_normal(fold_key(noise_key, constants.timesteps), shape)
            next_carry = (x_s, x0_hat if self_conditioning else None)
            return next_carry, (x_t, x0_hat) if keep else None

        start = draw_normal(start_key, shape)
        previous = jnp.zeros(shape, jnp.float32) if self_conditioning else None
        (x0, _), steps = jax.lax.scan(step, (start, previous), jax.tree.map(jnp.asarray, coefficients))
        return x0, steps


__all__ = ["Coefficients", "Denoise", "Sampler", "Trajectory"]
