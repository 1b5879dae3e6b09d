"""Section ``recommend``: lists for all users at once, and for one warm user, from arrays and under own ids."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

import jaxrec
from benchmarks.dataset import Arrays
from benchmarks.device import peak_memory
from benchmarks.rows import Row, row, skipped
from benchmarks.settings import Settings
from benchmarks.timing import Times, repeat
from jaxrec.bulk import ListRequest, trained_items
from jaxrec.config import Config
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.recommender import Recommender
from jaxrec.typing import Params

NEEDS: tuple[str, ...] = ()
DETAILS: tuple[str, ...] = ()
K = 10


def cases(settings: Settings) -> list[dict[str, Any]]:
    """Presets and types."""
    pairs = itertools.product(settings.presets, settings.dtypes)
    return [{"preset": name, "dtype": dtype} for name, dtype in pairs]


def measure(settings: Settings, case: dict[str, Any]) -> Iterator[Row]:
    """Rows for bulk and one user, each from arrays and through ``Run.recommend``.

    Parameters are fresh: the time does not depend on their values. The whole history is excluded.
    """
    arrays, config = settings.arrays(), settings.config(case)
    recommender = dataclasses.replace(config.model, num_items=arrays.num_items)
    case = {**case, **arrays.card(), "k": K}
    if isinstance(recommender, PopularityRecommender):
        params = recommender.counts_to_params(arrays.item_counts())
    else:
        params = jax.jit(recommender.init)(jax.random.key(config.seed))
        case["max_length"] = recommender.max_length
    bulk = {**case, "part": "bulk", "batch_size": config.evaluation.batch_size}
    yield bulk_row(settings, bulk, arrays, lambda: _bulk(config, recommender, params, arrays))
    histories = _some_histories(arrays, settings.one_user_repeats)
    one = {**case, "part": "one user"}
    yield one_user_row(one, histories, _one_user(recommender, params, arrays))
    bulk, one = {**bulk, "part": "bulk, own ids"}, {**one, "part": "one user, own ids"}
    if arrays.split is None:
        yield from (skipped(part, "polars is not installed") for part in (bulk, one))
        return
    run = _run(config, recommender, params, arrays)
    log = arrays.split.interactions
    yield bulk_row(settings, bulk, arrays, lambda: run.recommend(log, k=K))
    external = [log.item_ids.external(history - 1).to_list() for history in histories]
    yield one_user_row(one, external, lambda history: run.recommend({"user": history}, k=K))


def bulk_row(settings: Settings, case: dict[str, Any], arrays: Arrays, recommend: Callable[[], Any]) -> Row:
    """Times lists for all users."""
    times = repeat(recommend, repeats=min(settings.repeats, 5))
    results = {"users_per_second": arrays.num_users / times.median, **peak_memory()}
    return row(case, results, times.record())


def one_user_row(case: dict[str, Any], histories: list, recommend: Callable[[Any], Any]) -> Row:
    """Times one user after the other, after a first round that compiles every shape."""
    for history in histories:
        recommend(history)
    wall, processor = [], []
    for history in histories:
        start = time.perf_counter(), time.process_time()
        recommend(history)
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    times = Times(wall, processor, warmups=len(histories))
    results = {"p50_seconds": times.median, "p99_seconds": times.percentile(99)}
    return row(case, results, times.record())


def _bulk(config: Config, recommender: Recommender, params: Params, arrays: Arrays) -> jaxrec.TopK:
    return jaxrec.recommend_histories(
        recommender,
        params,
        arrays.items,
        arrays.offsets,
        ListRequest(k=K, batch_size=config.evaluation.batch_size),
        item_counts=arrays.item_counts(),
        key=jax.random.key(config.seed),
    )


def _some_histories(arrays: Arrays, count: int) -> list[np.ndarray]:
    users = np.random.default_rng(0).integers(0, arrays.num_users, count)
    return [np.asarray(arrays.items[arrays.offsets[user] : arrays.offsets[user + 1]]) for user in users]


def _one_user(
    recommender: Recommender, params: Params, arrays: Arrays
) -> Callable[[np.ndarray], jaxrec.TopK]:
    """From a numpy history to numpy lists, in one shape; the exclusion holds twice the window."""
    length = getattr(recommender, "max_length", 1)
    allowed = jax.device_put(trained_items(recommender, arrays.item_counts()))
    key = jax.random.key(0)

    def recommend(history: np.ndarray) -> jaxrec.TopK:
        items, exclude = np.zeros((1, length), np.int32), np.zeros((1, 2 * length), np.int32)
        for row_of, newest in ((items, history[-length:]), (exclude, history[-2 * length :])):
            row_of[0, row_of.shape[1] - len(newest) :] = newest
        found = jaxrec.recommend(recommender, params, items, k=K, key=key, exclude=exclude, allowed=allowed)
        return jax.device_get(found)

    return recommend


def _run(config: Config, recommender: Recommender, params: Params, arrays: Arrays) -> jaxrec.Run:
    from jaxrec import artifact

    return jaxrec.Run(
        config=config,
        recommender=recommender,
        params=params,
        catalogue=artifact.catalogue_of(arrays.split.interactions),
        item_counts=arrays.item_counts(),
        data=artifact.data_card(arrays.split),
    )


def describe(case: dict[str, Any], results: dict[str, Any]) -> tuple[str, str]:
    """Users a second, or milliseconds of one user."""
    where = f"{case['preset']}, {case['data']} ({case['items']:,} items), {case['dtype']}"
    ids = ", own ids in and out" if case["part"].endswith("own ids") else ""
    if case["part"].startswith("bulk"):
        return (
            f"top-{K} for all users, history excluded{ids}: {where}",
            f"{results['users_per_second']:,.0f} users/s",
        )
    milliseconds = [1e3 * results[name] for name in ("p50_seconds", "p99_seconds")]
    figure = "p50 {:.2f} ms, p99 {:.2f} ms".format(*milliseconds)
    return f"top-{K} for one user, warm{ids}: {where}", figure


__all__ = ["DETAILS", "NEEDS", "cases", "describe", "measure"]
