"""What an evaluation gives: means, each user's values, groups, intervals."""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxrec.metrics import Ranks, accuracy, history_length_groups, popularity_groups
from jaxrec.metrics.diversity import concentration, f_score
from jaxrec.metrics.significance import bootstrap_intervals


class Group(NamedTuple):
    """A part of the targets.

    Attributes:
      name: which.
      users: how many users have one in it.
      metrics: means over them.
    """

    name: str
    users: int
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation found of n targets of m users; m is n where each has one, as in leave-one-out.

    A user with several targets has their mean, so that users count alike, and intervals and tests see users.

    Attributes:
      metrics: means over users, and for the lists of all targets ``coverage@K``, ``gini@K``, ``entropy@K``.
      ranks: ``[n]`` float32 rank of each target from 0, higher plus half of the equal.
      users: ``[m]`` rows of the users.
      per_user: the values behind each mean, ``[m]`` float64.
      groups: by history length and, where training counts are known, by popularity of the target.
      lists: ``[n, largest cutoff]`` int32 recommended items, 0 beyond a list's end, or ``None``.
    """

    metrics: dict[str, float]
    ranks: np.ndarray
    users: np.ndarray
    per_user: dict[str, np.ndarray]
    groups: list[Group]
    lists: np.ndarray | None = None

    def intervals(
        self, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
    ) -> dict[str, tuple[float, float]]:
        """Intervals of every metric that is a mean over users; see ``bootstrap_intervals``."""
        return bootstrap_intervals(self.per_user, resamples=resamples, level=level, seed=seed)


def summarise(
    values: dict[str, np.ndarray],
    counts: np.ndarray,
    cutoffs: tuple[int, ...],
    users: np.ndarray,
    lengths: np.ndarray,
    target_items: np.ndarray,
    item_counts: np.ndarray | None,
) -> Evaluation:
    """Averages the values of each user's targets, and those of the users.

    Args:
      values: ``higher``, ``equal`` and ``[n]`` values of lists by name; ``items`` are the lists.
      counts: ``[cutoffs, num_items + 1]``, how often each item was recommended.
      cutoffs: ascending.
      users: ``[n]`` rows of the users.
      lengths: ``[n]`` of the histories.
      target_items: ``[n]``.
      item_counts: ``[num_items + 1]`` occurrences in training, or ``None``.
    """
    ranks = Ranks(values.pop("higher"), values.pop("equal"))
    lists = values.pop("items", None)
    names = sorted(values, key=lambda name: (name.split("@")[0], int(name.split("@")[1])))
    values = accuracy(ranks, cutoffs) | {name: values[name].astype(np.float64) for name in names}
    masks = history_length_groups(lengths)
    if item_counts is not None:
        masks |= popularity_groups(target_items, item_counts)
    of_users, per_user = means_of_users(users, values)
    metrics = _means(per_user)
    for cutoff, row in zip(cutoffs, counts, strict=False):
        metrics |= {f"{name}@{cutoff}": value for name, value in concentration(row[1:]).items()}
    groups = []
    for name, mask in masks.items():
        inside, of_group = means_of_users(users[mask], {name: value[mask] for name, value in values.items()})
        groups.append(Group(name, len(inside), _means(of_group)))
    return Evaluation(metrics, ranks.mean, of_users, per_user, groups, lists)


def means_of_users(
    users: np.ndarray, values: dict[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Each user once, and the mean of the user's values; as they are where nobody comes twice.

    Args:
      users: ``[n]`` rows of the users.
      values: ``[n]`` values of targets by name.
    """
    distinct, places, targets = np.unique(users, return_inverse=True, return_counts=True)
    if len(distinct) == len(users):
        return users, values
    return distinct, {name: np.bincount(places, value) / targets for name, value in values.items()}


def _means(per_user: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over users, and ``f@K``, a function of means."""
    means = {name: float(np.mean(value)) for name, value in per_user.items()}
    for name in [name for name in means if name.startswith("cc@")]:
        cutoff = name.removeprefix("cc@")
        means[f"f@{cutoff}"] = f_score(means[f"hr@{cutoff}"], means[f"ndcg@{cutoff}"], means[name])
    return means


__all__ = ["Evaluation", "Group", "means_of_users", "summarise"]
