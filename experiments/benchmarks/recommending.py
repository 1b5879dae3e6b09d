"""Section ``recommend``: lists for many users at once, and for one warm user, from arrays and under own ids."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

import jaxrec
from benchmarks.dataset import Arrays
from benchmarks.device import peak_memory
from benchmarks.rows import Row, row, skipped
from benchmarks.settings import Settings
from benchmarks.timing import Times, repeat
from benchmarks.words import describe_sizes, sizes_of
from jaxrec.config import Config
from jaxrec.devices.sharding import available_mesh, place_params, users_at_once
from jaxrec.lists.bulk import ListRequest, trained_items
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.recommender import Recommender
from jaxrec.typing import Params

if TYPE_CHECKING:
    from jaxrec.data import Interactions

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
    recommender, params = fresh(config, arrays)
    case = {**case, **arrays.card(), **sizes_of(recommender), "k": K}
    yield from array_rows(settings, case, config, arrays, recommender, params)
    mesh, positions = available_mesh(config.parallel), recommender.target_positions
    at_once = users_at_once(config.evaluation.batch_size, mesh, positions).batch_size
    bulk = {**case, "part": "bulk, own ids", "batch_size": at_once}
    one = {**case, "part": "one user, own ids"}
    if arrays.split is None:
        yield from (skipped(part, "polars is not installed") for part in (bulk, one))
        return
    run = _run(config, recommender, params, arrays)
    log, users = arrays.split.interactions, arrays.spread_users(settings.bulk_users)
    some = {user: _external(log, arrays.history(user)) for user in users} if settings.bulk_users else log
    yield bulk_row(settings, bulk, len(users), lambda: run.recommend(some, k=K))
    histories = some_histories(arrays, settings.one_user_repeats)
    external = [_external(log, history) for history in histories]
    yield one_user_row(one, external, lambda history: run.recommend({"user": history}, k=K))


def fresh(config: Config, arrays: Arrays) -> tuple[Recommender, Params]:
    """The model of a config for some data, with fresh parameters."""
    recommender = dataclasses.replace(config.model, num_items=arrays.num_items)
    if isinstance(recommender, PopularityRecommender):
        return recommender, recommender.counts_to_params(arrays.item_counts())
    return recommender, jax.jit(recommender.init)(jax.random.key(config.seed))


def array_rows(
    settings: Settings,
    case: dict[str, Any],
    config: Config,
    arrays: Arrays,
    recommender: Recommender,
    params: Params,
) -> Iterator[Row]:
    """Bulk, on all devices of the config, and one user, on one; from arrays to arrays."""
    users = arrays.spread_users(settings.bulk_users)
    mesh = available_mesh(config.parallel)
    positions = recommender.target_positions
    at_once = users_at_once(config.evaluation.batch_size, mesh, positions).batch_size
    bulk = {**case, "part": "bulk", "batch_size": at_once}
    placed = params if mesh is None else place_params(params, mesh)
    if mesh is not None:
        bulk["devices"] = mesh.size
    histories = [arrays.history(user) for user in users]
    offsets = np.cumsum([0, *map(len, histories)])
    log = np.concatenate(histories), offsets, arrays.item_counts()
    yield bulk_row(settings, bulk, len(users), lambda: _bulk(config, recommender, placed, *log, mesh))
    histories = some_histories(arrays, settings.one_user_repeats)
    yield one_user_row({**case, "part": "one user"}, histories, _one_user(recommender, params, arrays))


def bulk_row(settings: Settings, case: dict[str, Any], users: int, recommend: Callable[[], Any]) -> Row:
    """Times lists for many users; ``first_seconds`` are those of the first run, which compiles."""
    start = time.perf_counter()
    recommend()
    first = time.perf_counter() - start
    times = repeat(recommend, repeats=min(settings.repeats, 5), warmups=0)
    results = {"users_per_second": users / times.median, "first_seconds": first, **peak_memory()}
    return row({**case, "bulk_users": users}, results, times.record())


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


def _bulk(
    config: Config,
    recommender: Recommender,
    params: Params,
    items: np.ndarray,
    offsets: np.ndarray,
    item_counts: np.ndarray,
    mesh: Mesh | None,
) -> jaxrec.TopK:
    return jaxrec.recommend_histories(
        recommender,
        params,
        items,
        offsets,
        ListRequest(k=K, batch_size=config.evaluation.batch_size),
        item_counts=item_counts,
        key=jax.random.key(config.seed),
        mesh=mesh,
    )


def some_histories(arrays: Arrays, count: int) -> list[np.ndarray]:
    """Histories of users drawn at random."""
    users = np.random.default_rng(0).integers(0, arrays.num_users, count)
    return [arrays.history(user) for user in users]


def _external(log: "Interactions", history: np.ndarray) -> list:
    """A history under the log's own ids."""
    return log.item_ids.external(history - 1).to_list()


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
    sizes = describe_sizes(case)
    where = (
        f"{case['preset']}, {case['data']} ({case['items']:,} items), {sizes and sizes + ', '}{case['dtype']}"
    )
    ids = ", own ids in and out" if case["part"].endswith("own ids") else ""
    if case["part"].startswith("bulk"):
        count = case.get("bulk_users", case["users"])
        users = "all" if count == case["users"] else f"{count:,}"
        figure = f"{results['users_per_second']:,.0f} users/s"
        if "first_seconds" in results:
            figure += f", first time {results['first_seconds']:.2g} s"
        peak = results["peak_memory_bytes"] / 2**30
        figure += f", peak {peak:.2f} GiB of the {results['memory_of']}"
        return f"top-{K} for {users} users, history excluded{ids}: {where}", figure
    milliseconds = [1e3 * results[name] for name in ("p50_seconds", "p99_seconds")]
    figure = "p50 {:.2f} ms, p99 {:.2f} ms".format(*milliseconds)
    return f"top-{K} for one user, warm{ids}: {where}", figure


__all__ = [
    "DETAILS",
    "NEEDS",
    "array_rows",
    "bulk_row",
    "cases",
    "describe",
    "fresh",
    "measure",
    "one_user_row",
    "some_histories",
]
