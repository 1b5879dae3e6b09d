"""Section ``pipeline``: how fast Grain delivers training batches."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from benchmarks.rows import Row, row, skipped
from benchmarks.settings import Settings
from benchmarks.steps import plan_of
from benchmarks.timing import repeat
from jaxrec.models.popularity import PopularityRecommender

NEEDS = ("grain",)
DETAILS: tuple[str, ...] = ()
CALLS = 200


def cases(settings: Settings) -> list[dict[str, Any]]:
    """Presets and numbers of threads."""
    pairs = itertools.product(settings.presets, settings.threads)
    return [{"preset": name, "threads": threads} for name, threads in pairs]


def measure(settings: Settings, case: dict[str, Any]) -> Iterator[Row]:
    """One row: batches as numpy arrays, taken one after the other and not used."""
    from jaxrec.data.pipeline import CallIterator, CallSource

    arrays, config = settings.arrays(), settings.config(case)
    if isinstance(config.model, PopularityRecommender):
        yield skipped(case, "popularity is counted, not trained")
        return
    recommender = dataclasses.replace(config.model, num_items=arrays.num_items)
    plan = plan_of(arrays, recommender, config)
    case = {**case, **arrays.card(), "max_length": recommender.max_length, "steps": plan.steps}
    calls = plan.first_call(1 + int(CALLS / plan.calls_per_epoch))
    delivered: dict[str, float] = {}

    def take() -> None:
        sequences, targets = 0, 0.0
        for _ in range(calls):
            batch = next(iterator)
            sequences += batch.items.shape[0] * batch.items.shape[1]
            targets += float(batch.weights.sum())
        delivered.update(sequences=sequences, targets=targets)

    with CallIterator(CallSource(arrays.items, plan), num_threads=case["threads"]) as iterator:
        times = repeat(take, repeats=settings.repeats)
    results = {
        "sequences_per_second": delivered["sequences"] / times.median,
        "targets_per_second": delivered["targets"] / times.median,
        "sequences_per_processor_second": delivered["sequences"] / times.record()["median_processor_seconds"],
        "call_seconds": times.median / calls,
    }
    yield row(case, results, times.record())


def describe(case: dict[str, Any], results: dict[str, Any]) -> tuple[str, str]:
    """Sequences and targets a second."""
    what = f"Grain pipeline, {case['data']}, L {case['max_length']}, {case['steps']} batches a call"
    speeds = (results["sequences_per_second"] / 1e6, results["targets_per_second"] / 1e6)
    return what, "{:.2f} M sequences/s, {:.1f} M targets/s".format(*speeds)


__all__ = ["DETAILS", "NEEDS", "cases", "describe", "measure"]
