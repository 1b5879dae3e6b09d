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
from benchmarks.device import matrix_product_peak, peak_memory, tree_bytes
from benchmarks.rows import Row, row, skipped
from benchmarks.settings import Settings
from benchmarks.steps import epoch_of_steps, feed_of, plan_of, shares, time_step
from benchmarks.timing import Times
from benchmarks.words import describe_devices, describe_flops, describe_sizes, sizes_of
from jaxrec.config import Config
from jaxrec.data.windows import WindowPlan
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.presets import preset
from jaxrec.recommender import Recommender
from jaxrec.train.logging import Silent
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


__all__ = ["DETAILS", "NEEDS", "cases", "describe", "measure", "time_loop"]
