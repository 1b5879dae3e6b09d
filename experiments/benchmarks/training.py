"""Section ``training``: the whole loop fed by Grain, and the compiled step of every length bucket."""

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
from benchmarks.device import matrix_product_peak, peak_memory, step_flops, tree_bytes
from benchmarks.rows import Row, row, skipped
from benchmarks.settings import Settings
from benchmarks.timing import Times, repeat
from jaxrec.config import Config
from jaxrec.data.windows import ROW_MULTIPLE, WindowPlan, plan_windows
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.presets import preset
from jaxrec.recommender import Recommender
from jaxrec.train.logging import Silent
from jaxrec.train.optimizer import make_optimizer
from jaxrec.train.parallel import Placement
from jaxrec.train.state import create_state

NEEDS: tuple[str, ...] = ()
DETAILS: tuple[str, ...] = ("step",)
LOOP_NEEDS = ("grain", "orbax")


def cases(settings: Settings) -> list[dict[str, Any]]:
    """Every combination of presets, types, modes, devices and steps."""
    return [
        {"preset": name, "dtype": dtype, "mode": mode, "devices": devices, "steps": steps}
        for name, dtype, mode, devices in itertools.product(
            settings.presets, settings.dtypes, settings.modes, settings.devices
        )
        for steps in settings.steps or (preset(name).train.steps_per_call,)
    ]


def measure(settings: Settings, case: dict[str, Any]) -> Iterator[Row]:
    """A row for the loop, then one for the step of each bucket."""
    config = settings.config(case)
    if isinstance(config.model, PopularityRecommender):
        yield skipped(case, "popularity is counted, not trained")
        return
    arrays = settings.arrays()
    recommender = dataclasses.replace(config.model, num_items=arrays.num_items)
    placement = Placement(config.parallel)
    plan = plan_of(arrays, recommender, config, placement.num_devices)
    case = {**case, **arrays.card(), "max_length": recommender.max_length, "steps": plan.steps}
    case["batch_targets"] = config.train.batch_targets
    loop_case = {**case, "part": "loop"}
    if absent := missing(LOOP_NEEDS):
        yield skipped(loop_case, f"{' and '.join(absent)} not installed")
    else:
        times, results = time_loop(settings, config, recommender, arrays, plan, placement)
        yield row(loop_case, results, times.record())
    peak = matrix_product_peak(case["dtype"], settings.product_size)
    if jax.default_backend() != "cpu":  # fake devices share the processor, real ones add theirs
        peak *= placement.num_devices
    for number, bucket in enumerate(plan.buckets):
        part = {**case, "part": "step", "length": bucket.length, "rows": bucket.rows_per_batch}
        times, results = time_step(settings, config, recommender, arrays, plan, placement, number)
        results["matrix_product_flops_per_second"] = peak
        results["share_of_matrix_product"] = results["flops_per_second"] / peak
        yield row(part, results, times.record())


def plan_of(arrays: Arrays, recommender: Recommender, config: Config, devices: int = 1) -> WindowPlan:
    """The windows as ``jaxrec.fit`` plans them."""
    return plan_windows(
        arrays.offsets[:-1],
        arrays.train_ends,
        max_length=recommender.max_length,
        batch_targets=config.train.batch_targets,
        steps=config.train.steps_per_call,
        positions=recommender.target_positions,
        seed=config.seed,
        length_buckets=config.train.length_buckets,
        row_multiple=int(np.lcm(ROW_MULTIPLE, devices)),
    )


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
    """The compiled call of one bucket on a batch that lies on the device already."""
    optimizer = make_optimizer(
        config.optimizer, steps_per_epoch=plan.calls_per_epoch * plan.steps, total_steps=10_000
    )
    index = next(index for index in itertools.count() if plan.call(index).bucket == bucket)
    host = plan.batch(arrays.items, index)
    batches = placement.put_batches(host)
    key = jax.device_put(jax.random.key(1, impl=config.train.random_bits), placement.replicated)
    state = placement.put_state(create_state(recommender, optimizer, jax.random.key(0)))
    start = time.perf_counter()
    compiled = placement.compile_step(recommender, optimizer).lower(state, batches, key).compile()
    compile_seconds = time.perf_counter() - start

    def run() -> None:
        nonlocal state
        state, metrics = compiled(state, batches, key)
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
    memory = compiled.memory_analysis()
    if memory is not None:
        results["temporary_bytes"] = memory.temp_size_in_bytes
    return times, results


def describe(case: dict[str, Any], results: dict[str, Any]) -> tuple[str, str]:
    """The loop's speed, or the step's with its share of the device's peak."""
    devices = "" if case["devices"] == 1 else f", {case['devices']} devices ({case['mode']})"
    what = (
        f"training {case['preset']} on {case['data']}, L {case['max_length']}, {case['dtype']}{devices},"
        f" {case['steps']} steps a call"
    )
    if case["part"] == "step":
        what += f", compiled step of {case['rows']} x {case['length']}"
        figure = (
            f"{1e3 * results['step_seconds']:.3g} ms, {results['targets_per_second']:,.0f} targets/s,"
            f" {results['flops_per_second'] / 1e9:,.0f} GFLOP/s ({results['share_of_matrix_product']:.0%} of a"
            f" large matrix product), compiled in {results['compile_seconds']:.1f} s"
        )
        return what, figure
    figure = (
        f"{results['targets_per_second']:,.0f} targets/s, {results['epoch_seconds']:.3g} s an epoch,"
        f" peak {results['peak_memory_bytes'] / 2**30:.2f} GiB"
    )
    return what, figure


__all__ = ["DETAILS", "NEEDS", "cases", "describe", "measure", "plan_of"]
