"""Metrics: accuracy from ranks, diversity of lists, intervals and tests."""

from jaxrec.metrics.accuracy import (
    CUTOFFS,
    SELECTION_METRIC,
    Ranks,
    accuracy,
    accuracy_names,
    history_length_groups,
    hits,
    ndcg,
    popularity_groups,
    rank_targets,
    reciprocal_rank,
)
from jaxrec.metrics.significance import paired_test

__all__ = [
    "CUTOFFS",
    "SELECTION_METRIC",
    "Ranks",
    "accuracy",
    "accuracy_names",
    "history_length_groups",
    "hits",
    "ndcg",
    "paired_test",
    "popularity_groups",
    "rank_targets",
    "reciprocal_rank",
]
