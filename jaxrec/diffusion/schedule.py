"""Noise schedules: how much of the signal is left after each step of the forward process.

A schedule is a frozen dataclass that answers with the step variances β and the products
ᾱ_t = ∏_{s ≤ t} (1 − β_s). Steps are counted from 0 (nearly clean) to T − 1 (nearly noise). The
arrays are computed in float64 with numpy, so they are constants of a compiled program.

The named schedules are those of DiffuRec's code (Li et al. 2023, arXiv 2304.00686), which took them from
Ho et al. 2020 (linear), Nichol and Dhariwal 2021 (cosine) and Diffusion-LM, Li et al. 2022 (square root,
and the truncated ones, which start with visible noise). Where a formula gives a β above 0.999, β is
0.999: the rule of Nichol and Dhariwal, applied here to the linear families as well (our reading).
"""

import dataclasses
from collections.abc import Callable

import numpy as np

LARGEST_BETA = 0.999


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Base class; a subclass gives ``_raw_betas``.

    Attributes:
      num_steps: T, the number of diffusion steps, at least 1.
    """

    num_steps: int = 32

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"a schedule needs at least 1 step, but num_steps is {self.num_steps}")

    def _raw_betas(self) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define _raw_betas")

    def exact_betas(self) -> np.ndarray:
        """β, ``[T]`` float64, each in (0, 0.999]."""
        return np.minimum(self._raw_betas(), LARGEST_BETA)

    def exact_alpha_bars(self) -> np.ndarray:
        """ᾱ, ``[T]`` float64, falling from nearly 1."""
        return np.cumprod(1.0 - self.exact_betas())

    def betas(self) -> np.ndarray:
        """β_t, the variance that step t adds: ``[T]`` float32."""
        return self.exact_betas().astype(np.float32)

    def alpha_bars(self) -> np.ndarray:
        """ᾱ_t, the share of the signal's variance left after step t: ``[T]`` float32."""
        return self.exact_alpha_bars().astype(np.float32)

    @property
    def _scale(self) -> float:
        """Stretches the 1000-step constants of Ho et al. 2020 over T steps."""
        return 1000.0 / self.num_steps


def _betas_from_alpha_bar(alpha_bar: Callable[[np.ndarray], np.ndarray], num_steps: int) -> np.ndarray:
    """β_t = 1 − ᾱ((t+1)/T) / ᾱ(t/T) of a continuous ᾱ on [0, 1] (Nichol and Dhariwal 2021)."""
    values = alpha_bar(np.linspace(0.0, 1.0, num_steps + 1))
    return 1.0 - values[1:] / values[:-1]


@dataclasses.dataclass(frozen=True)
class LinearSchedule(Schedule):
    """β rises linearly from 1e-4·s to 0.02·s, s = 1000/T (Ho et al. 2020)."""

    def _raw_betas(self) -> np.ndarray:
        return np.linspace(1e-4 * self._scale, 0.02 * self._scale, self.num_steps)


@dataclasses.dataclass(frozen=True)
class TruncatedLinearSchedule(Schedule):
    """β rises linearly from 1e-4·s + 0.01 to 0.02·s + 0.01; DiffuRec's default.

    Where the end would exceed 1 (T < 21), it is 0.001·s + 0.01, as in DiffuRec's code. About half of the item is then
    left at the last step (ᾱ 0.46 to 0.52), while a reverse process starts from pure noise: for fewer reverse steps,
    keep T at 21 or more and give the sampler fewer steps.
    """

    def _raw_betas(self) -> np.ndarray:
        end = 0.02 * self._scale + 0.01
        if end > 1.0:
            end = 0.001 * self._scale + 0.01
        return np.linspace(1e-4 * self._scale + 0.01, end, self.num_steps)


@dataclasses.dataclass(frozen=True)
class PiecewiseLinearSchedule(Schedule):
    """β falls from 1e-4·s + 0.01 to 1e-4·s over the first steps, then rises to 0.02·s.

    Attributes:
      falling_steps: steps of the first piece, in which β falls; fewer than T.
    """

    falling_steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.falling_steps < self.num_steps:
            raise ValueError(
                f"falling_steps is {self.falling_steps}, but must lie between 1 and num_steps - 1 "
                f"({self.num_steps - 1})"
            )

    def _raw_betas(self) -> np.ndarray:
        low = 1e-4 * self._scale
        falling = np.linspace(low + 0.01, low, self.falling_steps)
        rising = np.linspace(low, 0.02 * self._scale, self.num_steps - self.falling_steps)
        return np.concatenate([falling, rising])


@dataclasses.dataclass(frozen=True)
class CosineSchedule(Schedule):
    """ᾱ(u) = cos²(π/2 · (u + 0.008)/1.008), u = t/T (Nichol and Dhariwal 2021, eq. 17)."""

    def _raw_betas(self) -> np.ndarray:
        return _betas_from_alpha_bar(lambda u: np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2, self.num_steps)


@dataclasses.dataclass(frozen=True)
class TruncatedCosineSchedule(Schedule):
    """ᾱ(u) = cos²(π/2 · (u + 0.1)/1.1), whose first step already removes 1 − ᾱ(0) = 0.020."""

    def _raw_betas(self) -> np.ndarray:
        def alpha_bar(u: np.ndarray) -> np.ndarray:
            return np.cos((u + 0.1) / 1.1 * np.pi / 2) ** 2

        values = np.concatenate([[1.0], alpha_bar(np.arange(self.num_steps) / self.num_steps)])
        return 1.0 - values[1:] / values[:-1]


@dataclasses.dataclass(frozen=True)
class SquareRootSchedule(Schedule):
    """ᾱ(u) = 1 − √(u + 0.0001): noise comes fast at first (Diffusion-LM, Li et al. 2022, appendix A)."""

    def _raw_betas(self) -> np.ndarray:
        # ᾱ(1) would be slightly negative: the last β is then above 1 and is cut to 0.999.
        return _betas_from_alpha_bar(lambda u: 1.0 - np.sqrt(u + 1e-4), self.num_steps)


__all__ = [
    "LARGEST_BETA",
    "CosineSchedule",
    "LinearSchedule",
    "PiecewiseLinearSchedule",
    "Schedule",
    "SquareRootSchedule",
    "TruncatedCosineSchedule",
    "TruncatedLinearSchedule",
]
