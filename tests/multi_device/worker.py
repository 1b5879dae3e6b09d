"""Run by test_parallel.py in a process of its own with 8 fake devices: trains a model in several ways.

Writes, for each way, the losses, gradient norms and final parameters, into the .npz file named on the
command line.
"""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np

jax.config.update("jax_platforms", "cpu")

from jaxrec.data.windows import plan_windows
from jaxrec.mesh import ParallelConfig
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.models.stosa import StosaRecommender
from jaxrec.nn.refinement import Refined
from jaxrec.train.feed import make_feed
from jaxrec.train.optimizer import OptimizerConfig, make_optimizer
from jaxrec.train.parallel import Placement
from jaxrec.train.state import create_state

SIZES = {"num_items": 60, "max_length": 8, "width": 16, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
MODELS = {
    "sasrec": EncoderRecommender(**SIZES),
    "awrsr": EncoderRecommender(**SIZES, attention=Refined()),
    "stosa": StosaRecommender(**SIZES),
}
WAYS = {
    "one": (ParallelConfig(devices=1), "grain"),
    "jit": (ParallelConfig(mode="jit", devices=8), "grain"),
    "pmap": (ParallelConfig(mode="pmap", devices=8), "grain"),
    "jit-device": (ParallelConfig(mode="jit", devices=8), "device"),
    "pmap-device": (ParallelConfig(mode="pmap", devices=8), "device"),
}


def train(model, way: ParallelConfig, source: str) -> dict[str, np.ndarray]:
    """Three calls of two plain-SGD steps (Adam would hide a wrong scale of the gradient)."""
    placement = Placement(way)
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(generator.integers(3, 13, 100))])  # unequal: so are the devices
    items = generator.integers(1, 61, offsets[-1]).astype(np.int32)
    plan = plan_windows(
        offsets[:-1], offsets[1:], max_length=8, batch_targets=128, steps=2, length_buckets=False
    )
    optimizer = make_optimizer(
        OptimizerConfig(name="sgd", learning_rate=0.5, warmup_steps=0), steps_per_epoch=1, total_steps=10
    )
    state = placement.put_state(create_state(model, optimizer, jax.random.key(0)))
    feed = make_feed(source, items, plan, placement)
    step = placement.compile_step(model, optimizer, on_device=feed.on_device)
    key = jax.device_put(jax.random.key(1), placement.replicated)
    records = []
    for _ in range(3):
        state, metrics = step(state, next(feed), key)
        records.append([float(metrics[name]) for name in ("loss", "grad_norm", "weight")])
    feed.close()
    leaves = {
        f"params{jax.tree_util.keystr(path)}": np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(state.params)
    }
    return {"metrics": np.asarray(records), **leaves}


if __name__ == "__main__":
    assert jax.device_count() == 8
    results = {
        f"{name}/{way}/{key}": value
        for name, model in MODELS.items()
        for way, (config, source) in WAYS.items()
        for key, value in train(model, config, source).items()
    }
    np.savez(sys.argv[1], **results)
