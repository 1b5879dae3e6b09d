"""Section ``diffusion``: training and recommending with the reverse process, at sizes equal for all forms."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from benchmarks.device import matrix_product_peak
from benchmarks.recommending import array_rows, fresh
from benchmarks.recommending import describe as describe_lists
from benchmarks.rows import Row, row
from benchmarks.settings import Settings
from benchmarks.steps import epoch_of_steps, feed_of, plan_of, shares, time_step
from benchmarks.words import describe_flops, describe_sizes, sizes_of
from jaxrec.train.parallel import Placement

NEEDS: tuple[str, ...] = ()
DETAILS: tuple[str, ...] = ("step",)


class Size(NamedTuple):
    """A preset at a size."""

    preset: str
    width: int
    num_layers: int
    max_length: int


SIZES = (
    Size("diffurec", 128, 4, 50),
    Size("diffurecsys", 128, 4, 50),
    Size("diffurecsys-cached", 128, 4, 50),
    Size("diffurecsys", 256, 4, 100),
    Size("diffurecsys-cached", 256, 4, 100),
)


def cases(settings: Settings) -> list[dict[str, Any]]:
    """All sizes, those of the flags where they are given, and types; presets other than the default choose."""
    chosen = [preset for preset in settings.presets if preset in {size.preset for size in SIZES}]
    sizes = [size for size in SIZES if not chosen or size.preset in chosen]
    given = {name: getattr(settings, name) for name in ("width", "num_layers", "max_length")}
    changed = dict.fromkeys(size._replace(**{k: v for k, v in given.items() if v}) for size in sizes)
    return [{**size._asdict(), "dtype": dtype} for size, dtype in itertools.product(changed, settings.dtypes)]


def measure(settings: Settings, case: dict[str, Any]) -> Iterator[Row]:
    """Rows for the compiled training steps of an epoch and of each bucket, for bulk, and for one user."""
    arrays, config = settings.arrays(), settings.config(case)
    recommender, params = fresh(config, arrays)
    placement = Placement(config.parallel)
    plan = plan_of(arrays, recommender, config, placement.num_devices)
    case = {**case, **arrays.card(), **sizes_of(recommender)}
    train = {**case, "steps": plan.steps, "batch_targets": config.train.batch_targets}
    train["feed"] = feed_of(config, arrays, plan)
    peak = matrix_product_peak(case["dtype"], settings.product_size)
    buckets = []
    for number, bucket in enumerate(plan.buckets):
        part = {**train, "part": "step", "length": bucket.length, "rows": bucket.rows_per_batch}
        times, results = time_step(settings, config, recommender, arrays, plan, placement, number)
        buckets.append(row(part, {**results, **shares(results, peak)}, times.record()))
    results, timing = epoch_of_steps(plan, buckets)
    yield row({**train, "part": "training"}, {**results, **shares(results, peak)}, timing)
    yield from buckets
    reverse = {**case, "k": 10, "reverse_steps": len(recommender.sampler.timesteps())}
    few = dataclasses.replace(settings, bulk_users=settings.diffusion_users)
    yield from array_rows(few, reverse, config, arrays, recommender, jax.block_until_ready(params))


def describe(case: dict[str, Any], results: dict[str, Any]) -> tuple[str, str]:
    """Prefixes a second, or the speed of recommending."""
    if case["part"] not in ("training", "step"):
        what, figure = describe_lists(case, results)
        return f"{what}, {case['reverse_steps']} reverse steps", figure
    what = f"training {case['preset']} on {case['data']}, {describe_sizes(case)}, {case['dtype']}"
    if case["part"] == "step":
        what += f", compiled step of {case['rows']} x {case['length']}"
    figure = (
        f"{results['targets_per_second']:,.0f} prefixes/s, {describe_flops(results['flops_per_second'])}"
        f" ({results['share_of_matrix_product']:.0%} of a large matrix product), compiled in"
        f" {results['compile_seconds']:.1f} s"
    )
    return what, figure


__all__ = ["DETAILS", "NEEDS", "SIZES", "cases", "describe", "measure"]
