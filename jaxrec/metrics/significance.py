"""How sure a mean over users is, and whether two models differ (numpy, float64)."""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

DRAWS_AT_ONCE = 1 << 22
MOST_RESAMPLED = 100_000
"""Users above which a mean counts as normal instead of being resampled."""


def bootstrap_intervals(
    values: dict[str, np.ndarray], *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over users of each mean (Efron, Tibshirani 1993, chapter 13).

    All metrics see the same resamples. For more than ``MOST_RESAMPLED`` users it is the interval that the bootstrap
    approaches, mean ± z · σ / √n with the standard deviation σ over the users. A mean of so many values between 0 and 1
    is normal to less than the bootstrap's own random error (with 1,000 resamples the ends vary by 8 % of the standard
    error) unless fewer than a hundred users have a value above 0, and resampling millions of users could take longer
    than ranking them.

    Args:
      values: each user's value of each metric, ``[n]``.
      resamples: draws of n users with replacement.
      level: share of the draws inside the interval.
      seed: seed of the draws.
    """
    number = len(next(iter(values.values()), ()))
    if number > MOST_RESAMPLED:
        return {
            name: _normal_interval(np.asarray(value, np.float64), level) for name, value in values.items()
        }
    matrix = _matrix(list(values.values()))
    random = np.random.default_rng(seed)
    block = max(1, DRAWS_AT_ONCE // number)
    means = []
    for start in range(0, resamples, block):
        drawn = [
            np.bincount(random.integers(0, number, number), minlength=number)
            for _ in range(min(block, resamples - start))
        ]
        means.append(np.stack(drawn).astype(np.float64) @ matrix / number)
    bounds = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(low), float(high)) for name, low, high in zip(values, *bounds, strict=True)}


def _normal_interval(values: np.ndarray, level: float) -> tuple[float, float]:
    margin = NormalDist().inv_cdf((1 + level) / 2) * values.std() / np.sqrt(len(values))
    return float(values.mean() - margin), float(values.mean() + margin)


class PairedTest(NamedTuple):
    """Two models on the same users.

    Attributes:
      difference: mean of the second minus mean of the first.
      low: lower end of the 95 % bootstrap interval of the difference.
      high: its upper end.
      p_value: two-sided, of the randomisation test: how often differences of random sign are as large.
      wins: users for whom the second is better.
      losses: users for whom the first is better.
    """

    difference: float
    low: float
    high: float
    p_value: float
    wins: int
    losses: int


def paired_test(
    first: np.ndarray, second: np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> PairedTest:
    """Fisher's randomisation test of paired values (Smucker, Allan, Carterette 2007), with an interval.

    For more than ``MOST_RESAMPLED`` users who differ, the sum under random signs is taken as normal.

    Args:
      first: ``[n]`` values of one model, a user each.
      second: ``[n]`` values of the other, the same users in the same order.
      resamples: random assignments of signs; the smallest p-value is 1 / (resamples + 1).
      seed: seed of the draws.

    Raises:
      ValueError: if the values are not of the same users (number).
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"a paired test needs the same users for both models: one has values of shape {first.shape}, the"
            f" other {second.shape}"
        )
    differences = second - first
    _matrix([differences])
    low, high = bootstrap_intervals({"difference": differences}, seed=seed)["difference"]
    p_value = _randomisation_p_value(differences, resamples, seed)
    wins, losses = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    return PairedTest(float(differences.mean()), low, high, p_value, wins, losses)


def _randomisation_p_value(differences: np.ndarray, resamples: int, seed: int) -> float:
    some = differences[differences != 0]
    if not len(some):
        return 1.0
    observed = abs(some.sum())
    if len(some) > MOST_RESAMPLED:
        p_value = math.erfc(observed / math.sqrt(2 * np.sum(some**2)))
        return max(p_value, 1 / (resamples + 1))
    random = np.random.default_rng(seed + 1)
    block = max(1, DRAWS_AT_ONCE // len(some))
    as_large = 0
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        positive = random.integers(0, 2, (rows, len(some)), np.int8)
        sums = 2 * (positive @ some) - some.sum()
        # Equal sums in another order of addition must count as equal.
        as_large += int(np.sum(np.abs(sums) >= observed * (1 - 1e-12)))
    return (as_large + 1) / (resamples + 1)


def _matrix(columns: list[np.ndarray]) -> np.ndarray:
    matrix = np.stack([np.asarray(column, np.float64) for column in columns], axis=1)
    if not len(matrix):
        raise ValueError("there is no user to average over")
    return matrix


__all__ = ["PairedTest", "bootstrap_intervals", "paired_test"]
