"""Section ``training``: the whole loop, and the compiled step of every length bucket."""

import dataclasses
import itertools
import math
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.dataset import Arrays, missing
from benchmarks.device import matrix_product_peak, peak_memory, program_memory, step_flops, tree_bytes
from benchmarks.rows import Row, row, skipped
from benchmarks.settings import Settings
from benchmarks.timing import Times, repeat
from jaxrec.config import Config
from jaxrec.data.on_device import DeviceLog, fits_on_device
from jaxrec.data.windows import WindowPlan
from jaxrec.fitting import plan_training
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.presets import preset
from jaxrec.recommender import Recommender
from jaxrec.train.logging import Silent
from jaxrec.train.optimizer import make_optimizer
from jaxrec.train.parallel import Placement

NEEDS: tuple[str, ...] = ()
DETAILS: tuple[str, ...] = ("step",)
LOOP_NEEDS = ("grain", "orbax")


def cases(settings: Settings) -> list[dict[str, Any]]:
    """Every combination of presets, types, modes, devices, feeds, batches and steps."""
    combinations = itertools.product(
        settings.presets,
        settings.dtypes,
        settings.modes,
        settings.devices,
        settings.model_devices,
        settings.feeds,
    )
    return [
        {
            "preset": name,
            "dtype": dtype,
            "mode": mode,
            "devices": devices,
            "model_devices": model_devices,
            "feed": feed,
            "batch_targets": targets,
            "steps": steps,
        }
        for name, dtype, mode, devices, model_devices, feed in combinations
        if devices % model_devices == 0 and (mode == "jit" or model_devices == 1)
        for targets in settings.batch_targets or (preset(name).train.batch_targets,)
        for steps in settings.steps or (preset(name).train.steps_per_call,)
    ]


def measure(settings: Settings, case: dict[str, Any]) -> Iterator[Row]:
    """A row for the loop, one for the compiled steps of an epoch, then one for the step of each bucket."""
    config = settings.config(case)
    if isinstance(config.model, PopularityRecommender):
        yield skipped(case, "popularity is counted, not trained")
        return
    absent = missing(LOOP_NEEDS)
    if absent and case["feed"] == "host":
        yield skipped(case, f"{' and '.join(absent)} not installed")
        return
    arrays = settings.arrays()
    recommender = dataclasses.replace(config.model, num_items=arrays.num_items)
    placement = Placement(config.parallel)
    plan = plan_of(arrays, recommender, config, placement.num_devices)
    case = {**case, **arrays.card(), **sizes_of(recommender), "steps": plan.steps}
    if settings.fused:
        case["fused"] = True
    case["feed"] = feed_of(config, arrays, plan)
    if case["devices"] > 1 and jax.default_backend() == "cpu":
        case["device_kind"] = "fake "
    if absent:
        yield skipped({**case, "part": "loop"}, f"{' and '.join(absent)} not installed")
    else:
        times, results = time_loop(settings, config, recommender, arrays, plan, placement)
        yield row({**case, "part": "loop"}, results, times.record())
    peak = matrix_product_peak(case["dtype"], settings.product_size)
    if jax.default_backend() != "cpu":  # fake devices share the processor, real ones add theirs
        peak *= placement.num_devices
    buckets = []
    for number, bucket in enumerate(plan.buckets):
        part = {**case, "part": "step", "length": bucket.length, "rows": bucket.rows_per_batch}
        times, results = time_step(settings, config, recommender, arrays, plan, placement, number)
        buckets.append(row(part, {**results, **shares(results, peak)}, times.record()))
    results, timing = epoch_of_steps(plan, buckets)
    yield row({**case, "part": "steps"}, {**results, **shares(results, peak)}, timing)
    yield from buckets


def shares(results: dict[str, Any], peak: float) -> dict[str, float]:
    """What a large matrix product reaches, and the share of it."""
    share = results["flops_per_second"] / peak
    return {"matrix_product_flops_per_second": peak, "share_of_matrix_product": share}


def sizes_of(recommender: Recommender) -> dict[str, Any]:
    """Length, width and depth, for every record."""
    return {
        name: getattr(recommender, name)
        for name in ("max_length", "width", "num_layers")
        if hasattr(recommender, name)
    }


def plan_of(arrays: Arrays, recommender: Recommender, config: Config, devices: int = 1) -> WindowPlan:
    """The windows as ``jaxrec.fit`` plans them."""
    return plan_training(config, recommender, arrays.offsets[:-1], arrays.train_ends, devices)


def feed_of(config: Config, arrays: Arrays, plan: WindowPlan) -> str:
    """``host`` or ``device``: where ``Trainer`` will make its batches."""
    source = config.train.batch_source
    device = source == "device" or (source == "auto" and fits_on_device(len(arrays.items), plan))
    return "device" if device else "host"


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


class Clock(Silent):
    """Notes time and targets after every call that the trainer has collected."""

    def __init__(self):
        self.trainer = None
        self.start_times = (time.perf_counter(), time.process_time())
        self.calls: list[tuple[float, float, float]] = []

    def steps(self, record: dict[str, Any]) -> None:
        self.calls.append((time.perf_counter(), time.process_time(), self.trainer.progress.targets))


def time_loop(
    settings: Settings,
    config: Config,
    recommender: Recommender,
    arrays: Arrays,
    plan: WindowPlan,
    placement: Placement,
) -> tuple[Times, dict[str, Any]]:
    """Whole epochs of ``Trainer``, as ``jaxrec.fit`` runs it, without evaluations; the first one warms up."""
    from jaxrec.train.checkpoint import Checkpoints
    from jaxrec.train.loop import Trainer

    epochs = settings.epochs + 1
    train = dataclasses.replace(
        config.train, epochs=epochs, evaluate_every=epochs, checkpoint_minutes=math.inf, keep_checkpoints=1
    )
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="jaxrec-benchmark-") as folder:
        checkpoints = Checkpoints(folder, keep=1)
        clock.trainer = trainer = Trainer(
            recommender,
            arrays.items,
            plan,
            placement,
            train,
            config.optimizer,
            checkpoints=checkpoints,
            evaluate=None,
            seed=config.seed,
            reporter=clock,
        )
        trainer.run()
        checkpoints.close()
    wall, processor, targets = np.asarray(clock.calls).T
    ends = np.asarray([plan.first_call(epoch) - 1 for epoch in range(1, epochs + 1)])
    times = Times(np.diff(wall[ends]).tolist(), np.diff(processor[ends]).tolist(), warmups=1)
    calls = [plan.buckets[plan.call(index).bucket] for index in range(ends[0] + 1, ends[-1] + 1)]
    tokens = sum(plan.steps * bucket.rows_per_batch * bucket.length for bucket in calls)
    seconds = float(wall[ends[-1]] - wall[ends[0]])
    results = {
        "targets_per_second": float(targets[ends[-1]] - targets[ends[0]]) / seconds,
        "tokens_per_second": tokens / seconds,
        "epoch_seconds": times.median,
        "first_epoch_seconds": float(wall[ends[0]] - clock.start_times[0]),
        "state_bytes": tree_bytes(trainer.state),
        **peak_memory(),
    }
    return times, results


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


def describe(case: dict[str, Any], results: dict[str, Any]) -> tuple[str, str]:
    """Speed and memory of the loop, or of the compiled step with its share of the device's peak."""
    fused = ", fused attention" if case.get("fused") else ""
    what = (
        f"training {case['preset']} on {case['data']}, {describe_sizes(case)}, {case['dtype']}{fused}"
        f"{describe_devices(case)}, {case['steps']} steps of {case['batch_targets']:,} targets a call,"
        f" batches made on the {case['feed']}"
    )
    if case["part"] == "loop":
        figure = (
            f"{results['targets_per_second']:,.0f} targets/s, {results['tokens_per_second']:,.0f} tokens/s,"
            f" {results['epoch_seconds']:.3g} s an epoch, peak {results['peak_memory_bytes'] / 2**30:.2f} GiB of"
            f" the {results['memory_of']}"
        )
        return what, figure
    speed = f"{results['targets_per_second']:,.0f} targets/s"
    if case["part"] == "step":
        what += f", compiled step of {case['rows']} x {case['length']}"
        speed = f"{1e3 * results['step_seconds']:.3g} ms, {speed}"
    else:
        what += ", compiled steps alone"
    figure = (
        f"{speed}, {describe_flops(results['flops_per_second'])} ({results['share_of_matrix_product']:.0%} of a"
        f" large matrix product), compiled in {results['compile_seconds']:.1f} s"
    )
    if "program_bytes" in results:
        figure += f", {results['program_bytes'] / 2**20:,.0f} MiB"
    return what, figure


def describe_sizes(case: dict[str, Any]) -> str:
    """Width, depth and length, of those that the case has."""
    words = {"width": "D {}", "num_layers": "{} layers", "max_length": "L {}"}
    return ", ".join(form.format(case[name]) for name, form in words.items() if name in case)


def describe_devices(case: dict[str, Any]) -> str:
    """How many devices, if more than one; those of a CPU are fake and share its cores."""
    if case["devices"] == 1:
        return ""
    split = "" if case["model_devices"] == 1 else f", table split over {case['model_devices']}"
    return f", {case['devices']} {case.get('device_kind', '')}devices ({case['mode']}{split})"


def describe_flops(value: float) -> str:
    """GFLOP/s, or TFLOP/s from a thousand on."""
    return f"{value / 1e12:,.1f} TFLOP/s" if value >= 1e12 else f"{value / 1e9:,.3g} GFLOP/s"


__all__ = [
    "DETAILS",
    "NEEDS",
    "cases",
    "describe",
    "describe_flops",
    "describe_sizes",
    "epoch_of_steps",
    "feed_of",
    "measure",
    "plan_of",
    "shares",
    "sizes_of",
    "time_loop",
    "time_step",
]
