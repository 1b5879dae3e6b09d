"""The compiled training step of every length bucket, without feed and loop."""

import itertools
import time
from typing import Any

import jax

from benchmarks.dataset import Arrays
from benchmarks.device import program_memory, step_flops
from benchmarks.rows import Row
from benchmarks.settings import Settings
from benchmarks.timing import Times, repeat
from jaxrec.config import Config
from jaxrec.data.on_device import DeviceLog, fits_on_device
from jaxrec.data.windows import WindowPlan
from jaxrec.fitting import plan_training
from jaxrec.recommender import Recommender
from jaxrec.train.optimizer import make_optimizer
from jaxrec.train.parallel import Placement


def plan_of(arrays: Arrays, recommender: Recommender, config: Config, devices: int = 1) -> WindowPlan:
    """The windows as ``jaxrec.fit`` plans them."""
    return plan_training(config, recommender, arrays.offsets[:-1], arrays.train_ends, devices)


def feed_of(config: Config, arrays: Arrays, plan: WindowPlan) -> str:
    """``host`` or ``device``: where ``Trainer`` will make its batches."""
    source = config.train.batch_source
    device = source == "device" or (source == "auto" and fits_on_device(len(arrays.items), plan))
    return "device" if device else "host"


def time_step(
    settings: Settings,
    config: Config,
    recommender: Recommender,
    arrays: Arrays,
    plan: WindowPlan,
    placement: Placement,
    bucket: int,
) -> tuple[Times, dict[str, Any]]:
    """The compiled call of one bucket on an input that lies on the device already: batches, or a call to cut."""
    optimizer = make_optimizer(
        config.optimizer, steps_per_epoch=plan.calls_per_epoch * plan.steps, total_steps=10_000
    )
    index = next(index for index in itertools.count() if plan.call(index).bucket == bucket)
    host = plan.batch(arrays.items, index)
    on_device = feed_of(config, arrays, plan) == "device"
    if on_device:
        inputs = DeviceLog(arrays.items, plan, placement.replicated).call(index)
    else:
        inputs = placement.put_batches(host)
    key = jax.device_put(jax.random.key(1, impl=config.train.random_bits), placement.replicated)
    state = placement.create_state(recommender, optimizer, jax.random.key(0))
    step = placement.compile_step(
        recommender, optimizer, on_device=on_device, accumulate=config.train.accumulate
    )
    start = time.perf_counter()
    if hasattr(step, "lower"):
        step = step.lower(state, inputs, key).compile()
    else:  # pmap of a call to cut compiles at its first run
        state, metrics = step(state, inputs, key)
        jax.block_until_ready(metrics)
    compile_seconds = time.perf_counter() - start

    def run() -> None:
        nonlocal state
        state, metrics = step(state, inputs, key)
        jax.block_until_ready(metrics)

    times = repeat(run, repeats=settings.repeats, warmups=2)
    flops = step_flops(recommender, optimizer, jax.tree.map(lambda part: part[0], host)) * plan.steps
    results = {
        "targets_per_second": float(host.weights.sum()) / times.median,
        "tokens_per_second": host.items.size / times.median,
        "step_seconds": times.median / plan.steps,
        "compile_seconds": compile_seconds,
        "flops_per_step": flops / plan.steps,
        "flops_per_second": flops / times.median,
    }
    if settings.trace:
        with jax.profiler.trace(settings.trace):
            run()
    return times, {**results, **program_memory(step)}


def epoch_of_steps(plan: WindowPlan, buckets: list[Row]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The compiled calls of all buckets, each as often as it comes in an epoch: speed without feed and loop.

    Args:
      plan: the windows.
      buckets: a row for the step of each.

    Returns:
      Results, and the timing: medians, and the shortest and longest calls, added up.
    """
    calls = [bucket.num_rows / (plan.steps * bucket.rows_per_batch) for bucket in plan.buckets]

    def add(values: list[float]) -> float:
        return sum(count * value for count, value in zip(calls, values, strict=True))

    found = [one["results"] for one in buckets]
    timing = {
        name: add([one["timing"][name] for one in buckets])
        for name in ("median_seconds", "lowest_seconds", "highest_seconds", "median_processor_seconds")
    }
    timing |= {name: buckets[0]["timing"][name] for name in ("warmups", "repeats")}
    seconds = timing["median_seconds"]
    per_call = [one["timing"]["median_seconds"] for one in buckets]
    results = {
        name: add([one[name] * time for one, time in zip(found, per_call, strict=True)]) / seconds
        for name in ("targets_per_second", "tokens_per_second", "flops_per_second")
    }
    results["epoch_seconds"] = seconds
    results["compile_seconds"] = sum(one["compile_seconds"] for one in found)
    for name in ("program_bytes", "temporary_bytes"):
        if name in found[0]:
            results[name] = max(one[name] for one in found)
    return results, timing


def shares(results: dict[str, Any], peak: float) -> dict[str, float]:
    """What a large matrix product reaches, and the share of it."""
    share = results["flops_per_second"] / peak
    return {"matrix_product_flops_per_second": peak, "share_of_matrix_product": share}


__all__ = ["epoch_of_steps", "feed_of", "plan_of", "shares", "time_step"]
