"""How sure a mean over users is, and whether two models differ (numpy, float64)."""

from typing import NamedTuple

import numpy as np

DRAWS_AT_ONCE = 1 << 22


def bootstrap_intervals(
    values: dict[str, np.ndarray], *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over users of each mean (Efron, Tibshirani 1993, chapter 13).

    All metrics see the same resamples.

    Args:
      values: each user's value of each metric, ``[n]``.
      resamples: draws of n users with replacement.
      level: share of the draws inside the interval.
      seed: of the draws.
    """
    matrix = _matrix(list(values.values()))
    random = np.random.default_rng(seed)
    number = len(matrix)
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

    Args:
      first: ``[n]`` values of one model, a user each.
      second: ``[n]`` values of the other, the same users in the same order.
      resamples: random assignments of signs; the smallest p-value is 1 / (resamples + 1).
      seed: of the draws.

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
