"""What an approximator sees of the noised target and of the step: shared by both approximators."""

from typing import Literal

import flax.linen as nn
import jax
import numpy as np

from jaxrec.typing import Array

Visibility = Literal["uncertain", "fixed", "learned"]


class StepEmbedding(nn.Module):
    """d_t = MLP(sinusoid(t · 1000/T)), D → 4D → SiLU → D (DiffuRec, Li et al. 2023).

    Attributes:
      num_steps: T.
      width: D.
    """

    num_steps: int
    width: int

    @nn.compact
    def __call__(self) -> Array:
        """The embeddings of all steps, ``[T, D]`` float32: T rows are fewer than a batch has."""
        frequencies = np.exp(-np.log(10_000.0) * np.arange(self.width // 2) / (self.width // 2))
        angles = np.arange(self.num_steps)[:, None] * (1000.0 / self.num_steps) * frequencies
        sinusoid = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
        hidden = jax.nn.silu(nn.Dense(4 * self.width, name="expand")(sinusoid))
        return nn.Dense(self.width, name="contract")(hidden)


class TargetSignal(nn.Module):
    """What a position gets to see of the noised target and of the step: S ∘ (x_t + d_t).

    Attributes:
      num_steps: T.
      width: D.
      visibility: how S is made. ``"uncertain"``: S ~ Normal(λ, λ) for each position and channel, in training
        and inference (DiffuRec). ``"fixed"``: S = λ. ``"learned"``: a number for each step and
        channel, starting at λ (our reading: the network settles how much it sees at which noise level).
      scale: λ.
    """

    num_steps: int
    width: int
    visibility: Visibility = "uncertain"
    scale: float = 0.001

    def setup(self):
        self.step_embedding = StepEmbedding(self.num_steps, self.width)
        if self.visibility == "learned":
            self.table = self.param(
                "scale", nn.initializers.constant(self.scale), (self.num_steps, self.width)
            )

    def embed_steps(self) -> Array:
        """d_t of all steps, ``[T, D]``: worked out once, before a reverse process."""
        return self.step_embedding()

    def __call__(self, embedded_steps: Array, x_t: Array, t: Array, normal: Array | None) -> Array:
        """The signal, float32, of the shape that its arguments broadcast to.

        Args:
          embedded_steps: what ``embed_steps`` gives.
          x_t: the noised targets, ``[B, N, D]``.
          t: their steps, int32, a scalar or ``[B, N]``.
          normal: standard normal, for ``"uncertain"`` only: ``[B, N, D]``, or ``[B, L, D]`` to spread one
            target (N = 1) over L positions.
        """
        signal = x_t + embedded_steps[t]
        if self.visibility == "uncertain":
            return self.scale * (1.0 + normal) * signal
        if self.visibility == "fixed":
            return self.scale * signal
        return self.table[t] * signal


__all__ = ["StepEmbedding", "TargetSignal", "Visibility"]
