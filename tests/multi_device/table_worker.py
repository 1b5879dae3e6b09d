"""Run by test_table_sharding.py in a process of its own with 8 fake devices: trains with split item tables.

Usage: ``table_worker.py equal FILE.npz`` writes losses, gradient norms and parameters of every model in several
layouts; ``table_worker.py state FILE.npz`` what becomes of a state: its layout, memory, checkpoints, refusals.
"""

import dataclasses
import os
import sys
import tempfile

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec.data.windows import plan_windows
from jaxrec.losses import BinaryLoss, SoftmaxLoss
from jaxrec.mesh import ParallelConfig
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.models.stosa import DistanceLoss
from jaxrec.presets import PRESETS, preset
from jaxrec.train.checkpoint import Checkpoints
from jaxrec.train.feed import make_feed
from jaxrec.train.optimizer import OptimizerConfig, make_optimizer
from jaxrec.train.parallel import Placement

NUM_ITEMS = 200  # a table of 256 rows: of 8 parts, one holds no item
SMALL = {"num_items": NUM_ITEMS, "max_length": 8, "width": 16, "num_layers": 1, "num_heads": 2}
SGD = OptimizerConfig(name="sgd", learning_rate=0.5, warmup_steps=0)  # Adam would hide a wrong scale
CLIPPED = dataclasses.replace(SGD, clip_norm=0.3)
ADAM = OptimizerConfig(learning_rate=0.01, warmup_steps=0, weight_decay=0.1, decay_embeddings=True)
WAYS = {
    "one": ParallelConfig(devices=1),
    "8x1": ParallelConfig(),
    "4x2": ParallelConfig(model_devices=2),
    "2x4": ParallelConfig(model_devices=4),
    "1x8": ParallelConfig(model_devices=8),
}


def small(name: str, **changes):
    """The model of a preset in tiny size."""
    return dataclasses.replace(preset(name).model, **SMALL, **changes)


MODELS = {name: small(name) for name in PRESETS if name != "popularity" and not name.endswith("demo")}
"""All that is trained; the demos differ from others in what is made equal here. With their dropout."""
LOSSES = {
    "binary": small("sasrec", loss_function=BinaryLoss(3, block=16)),
    "distance": small("stosa", loss_function=DistanceLoss()),
}
TILES = small("sasrec", loss_function=SoftmaxLoss(block=16, chunk=24))


class Training:
    """A model in training in one layout."""

    def __init__(self, model, way: str, source: str = "grain", optimizer: OptimizerConfig = SGD):
        self.placement = Placement(WAYS[way])
        generator = np.random.default_rng(0)
        lengths = generator.integers(3, 13, 100)  # unequal: so are the devices
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        items = generator.integers(1, NUM_ITEMS + 1, offsets[-1]).astype(np.int32)
        plan = plan_windows(
            offsets[:-1],
            offsets[1:],
            max_length=8,
            batch_targets=128,
            steps=2,
            positions=model.target_positions,
            length_buckets=False,
        )
        update = make_optimizer(optimizer, steps_per_epoch=1, total_steps=10)
        self.state = self.placement.create_state(model, update, jax.random.key(0))
        self.feed = make_feed(source, items, plan, self.placement)
        self.step = self.placement.compile_step(model, update, on_device=self.feed.on_device)
        self.key = jax.device_put(jax.random.key(1), self.placement.replicated)
        self.metrics = []

    def run(self, calls: int) -> "Training":
        """Calls of two steps."""
        for _ in range(calls):
            self.state, metrics = self.step(self.state, next(self.feed), self.key)
            self.metrics.append([float(metrics[name]) for name in ("loss", "grad_norm", "weight")])
        return self

    def result(self, part: str = "params") -> dict[str, np.ndarray]:
        """Metrics of each call, and the leaves of the parameters or of the optimizer state."""
        leaves = {
            f"{part}{jax.tree_util.keystr(path)}": np.asarray(leaf)
            for path, leaf in jax.tree.leaves_with_path(getattr(self.state, part))
        }
        return {"metrics": np.asarray(self.metrics), **leaves}

    def argument_bytes(self) -> int:
        """Memory of state and batch that the compiled step needs of each device."""
        inputs = (self.state, next(self.feed), self.key)
        return self.step.lower(*inputs).compile().memory_analysis().argument_size_in_bytes


def named(prefix: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}/{key}": value for key, value in values.items()}


def equal() -> dict[str, np.ndarray]:
    """``model/way/…``; the way ``one`` is what the others are compared with."""
    runs = [(name, way, model, "grain") for name, model in MODELS.items() for way in ("one", "2x4")]
    runs += [(name, way, model, "grain") for name, model in LOSSES.items() for way in ("one", "1x8")]
    runs += [("sasrec", way, MODELS["sasrec"], "grain") for way in ("4x2", "1x8")]
    runs += [("sasrec", "2x4-device", MODELS["sasrec"], "device")]
    runs += [("sasrec", "1x8-tiles", TILES, "grain")]
    results = {}
    for name, way, model, source in runs:
        optimizer = CLIPPED if name == "awrsr" else SGD
        training = Training(model, way.split("-")[0], source, optimizer).run(3)
        training.feed.close()
        results |= named(f"{name}/{way}", training.result())
    return results


def state() -> dict[str, np.ndarray]:
    """Of STOSA, which has two item tables, under AdamW."""
    trainings = {way: Training(MODELS["stosa"], way, optimizer=ADAM) for way in ("one", "2x4", "8x1")}
    results = {}

    def record(stage: str) -> None:
        for way, training in trainings.items():
            for part in ("params", "optimizer_state"):
                results.update(named(f"{stage}/{way}", training.result(part)))

    record("initial")
    for way, training in trainings.items():
        results[f"bytes/{way}"] = np.asarray(training.argument_bytes())
        training.feed.seek(0)
    split, others = trainings["2x4"], [trainings["one"], trainings["8x1"]]
    split.run(2)
    for path, leaf in jax.tree.leaves_with_path(split.state):
        shards = {shard.data.shape for shard in leaf.addressable_shards}
        results[f"shards/{jax.tree_util.keystr(path)}"] = np.asarray([leaf.shape, *shards])
    with tempfile.TemporaryDirectory() as directory:
        checkpoints = Checkpoints(directory)
        checkpoints.save(4, split.state, None, {})
        checkpoints.wait()
        for training in others:
            training.state, _ = checkpoints.restore(4, training.state, None)
            training.feed.seek(2)
        record("restored")
        for training in trainings.values():
            training.run(1)
        record("after")
        checkpoints.save(6, trainings["one"].state, None, {})
        checkpoints.wait()
        split.state, _ = checkpoints.restore(6, split.state, None)
        checkpoints.close()
    record("back")
    for training in trainings.values():
        training.feed.close()
    return results | named("refused", refusals())


@dataclasses.dataclass(frozen=True)
class WithItemsOfItsOwn(EncoderRecommender):
    """A model whose ranking vectors are no rows of its table."""

    def items(self, params):
        return jnp.zeros((256, self.width))


def refusals() -> dict[str, np.ndarray]:
    """What is said of layouts that cannot be."""
    cases = {
        "rows": (MODELS["sasrec"], ParallelConfig(devices=3, model_devices=3)),
        "table": (PopularityRecommender(num_items=NUM_ITEMS), WAYS["2x4"]),
        "items": (WithItemsOfItsOwn(**SMALL), WAYS["2x4"]),
    }
    said = {}
    for name, (model, config) in cases.items():
        try:
            Placement(config).compile_step(model, make_optimizer(SGD, steps_per_epoch=1, total_steps=1))
        except ValueError as error:
            said[name] = np.asarray(str(error))
    return said


if __name__ == "__main__":
    assert jax.device_count() == 8
    np.savez(sys.argv[2], **{"equal": equal, "state": state}[sys.argv[1]]())
