"""Run by test_noise.py in a process of its own with 8 fake devices: trains noisy models in several ways.

Writes, for each way, the losses, gradient norms and final parameters, into the .npz file named on the
command line, and the counters that devices of meshes of one and two axes see.
"""

import dataclasses
import functools
import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax
import numpy as np
from jax.sharding import PartitionSpec

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[2] / ".cache" / "tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_disable_most_optimizations", True)

from jaxrec.data.windows import plan_windows
from jaxrec.mesh import ParallelConfig
from jaxrec.presets import PRESETS, preset
from jaxrec.random_bits import row_counters
from jaxrec.recommender import Recommender
from jaxrec.rows import rows_split_over
from jaxrec.train.feed import make_feed
from jaxrec.train.optimizer import OptimizerConfig, make_optimizer
from jaxrec.train.parallel import Placement
from jaxrec.train.state import TrainState
from jaxrec.typing import Params

ROWS, LENGTH, NUM_ITEMS, STEPS = 16, 8, 60, 2
TINY = {
    "num_items": NUM_ITEMS,
    "max_length": LENGTH,
    "width": 16,
    "num_layers": 1,
    "num_heads": 2,
    "feed_forward_multiplier": 1,
    "dropout_rate": 0.2,
    "input_dropout_rate": 0.2,
    "attention_dropout_rate": 0.2,
    "uncertainty": 0.5,  # the presets' 0.001 would hide a wrong draw
}
WAYS = {
    "one": (ParallelConfig(devices=1), "grain"),
    "jit": (ParallelConfig(mode="jit", devices=8), "grain"),
    "pmap": (ParallelConfig(mode="pmap", devices=8), "grain"),
    "jit-device": (ParallelConfig(mode="jit", devices=8), "device"),
    "pmap-device": (ParallelConfig(mode="pmap", devices=8), "device"),
}
ALL_WAYS = ("sasrec", "diffurec")
"""Presets that are trained in every way; the others in one with ``jit`` and one with ``pmap``, to save compiling."""
LEFT_OUT = ("popularity", "vgenatt-demo")
"""The one is counted, not trained; the other differs from vgenatt in nothing but sizes."""


def tiny(name: str) -> Recommender:
    """A preset's model in tiny size, with its noise on."""
    model = preset(name).model
    known = {field.name for field in dataclasses.fields(model)}
    return dataclasses.replace(model, **{field: value for field, value in TINY.items() if field in known})


def plan_of_runs() -> list[tuple[str, str]]:
    """Every preset that is trained by gradients, and a way to train it."""
    return [
        (name, way)
        for name in PRESETS
        for way in (WAYS if name in ALL_WAYS else ("one", "jit", "pmap-device"))
        if name not in LEFT_OUT
    ]


@functools.cache
def initial_params(model: Recommender) -> Params:
    """The same for each way, on the host."""
    return jax.device_get(jax.jit(model.init)(jax.random.key(0)))


@functools.cache
def train(model: Recommender, way: str) -> dict[str, np.ndarray]:
    """Two calls of two plain-SGD steps (Adam would hide a wrong scale of the gradient)."""
    config, source = WAYS[way]
    placement = Placement(config)
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(generator.integers(3, 13, 160))])  # unequal: so are the devices
    items = generator.integers(1, NUM_ITEMS + 1, offsets[-1]).astype(np.int32)
    last = model.target_positions == "last"
    plan = plan_windows(
        *(offsets[:-1], offsets[1:]),
        max_length=LENGTH,
        batch_targets=ROWS if last else ROWS * LENGTH,
        steps=STEPS,
        positions=model.target_positions,
        length_buckets=False,
    )
    assert plan.steps == STEPS
    optimizer = make_optimizer(
        OptimizerConfig(name="sgd", learning_rate=0.2, warmup_steps=0), steps_per_epoch=1, total_steps=10
    )
    params = initial_params(model)
    state = placement.put_state(TrainState(params, optimizer.init(params), np.int32(0)))
    feed = make_feed(source, items, plan, placement)
    step = placement.compile_step(model, optimizer, on_device=feed.on_device)
    key = jax.device_put(jax.random.key(1), placement.replicated)
    records = []
    for _ in range(2):
        state, metrics = step(state, next(feed), key)
        records.append([float(metrics[name]) for name in ("loss", "grad_norm", "weight")])
    feed.close()
    leaves = {
        f"params{jax.tree_util.keystr(path)}": np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(state.params)
    }
    return {"metrics": np.asarray(records), **leaves}


def counters_on_devices(sizes: tuple[int, ...], names: tuple[str, ...]) -> np.ndarray:
    """``row_counters`` of a batch of 16 rows under ``shard_map``, put together again."""
    mesh = jax.make_mesh(sizes, names)

    def part():
        with rows_split_over(names):
            return row_counters((16 // 8, 3, 5))

    whole = jax.shard_map(part, mesh=mesh, in_specs=(), out_specs=PartitionSpec(names), check_vma=False)
    return np.asarray(jax.jit(whole)())


def main(path: str) -> None:
    """Trains everything and writes the results."""
    assert jax.device_count() == 8
    results = {
        f"{name}/{way}/{key}": value
        for name, way in plan_of_runs()
        for key, value in train(tiny(name), way).items()
    }
    results["counters/8"] = counters_on_devices((8,), ("data",))
    results["counters/4x2"] = counters_on_devices((4, 2), ("data", "model"))
    np.savez(path, **results)


if __name__ == "__main__":
    main(sys.argv[1])
