"""Run in a process of its own with 8 fake devices: trains in several layouts.

Usage: ``training_worker.py equal FILE.npz`` (test_training.py) writes losses, gradient norms and parameters of every
model in several layouts, and the counters that devices see; ``training_worker.py state FILE.npz``
(test_table_sharding.py) what becomes of a state: its layout, memory, checkpoints, refusals.
"""

import dataclasses
import functools
import os
import sys
import tempfile

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxrec.data.windows import plan_windows
from jaxrec.devices.mesh import ParallelConfig
from jaxrec.devices.random_bits import row_counters
from jaxrec.devices.rows import rows_split_over
from jaxrec.losses import BinaryLoss, SoftmaxLoss
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.models.stosa import DistanceLoss
from jaxrec.presets import PRESETS, preset
from jaxrec.train.checkpoint import Checkpoints
from jaxrec.train.feed import make_feed
from jaxrec.train.optimizer import OptimizerConfig, make_optimizer
from jaxrec.train.parallel import Placement
from jaxrec.train.state import TrainState
from jaxrec.typing import Params

NUM_ITEMS = 200  # a table of 256 rows: of 8 parts, one holds no item
ROWS, LENGTH, STEPS = 16, 8, 2
SMALL = {
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
SGD = OptimizerConfig(name="sgd", learning_rate=0.2, warmup_steps=0)  # Adam would hide a wrong scale
CLIPPED = dataclasses.replace(SGD, clip_norm=0.3, ema_decay=0.5)
ADAM = OptimizerConfig(
    learning_rate=0.01, warmup_steps=0, weight_decay=0.1, decay_embeddings=True, ema_decay=0.5
)
LAYOUTS = {
    "one": ParallelConfig(devices=1),
    "8x1": ParallelConfig(),
    "4x2": ParallelConfig(model_devices=2),
    "2x4": ParallelConfig(model_devices=4),
    "1x8": ParallelConfig(model_devices=8),
    "pmap": ParallelConfig(mode="pmap"),
}


def small(name: str, **changes):
    """The model of a preset in tiny size, with its noise on."""
    model = preset(name).model
    known = {field.name for field in dataclasses.fields(model)}
    values = {field: value for field, value in SMALL.items() if field in known}
    return dataclasses.replace(model, **values, **changes)


MODELS = {name: small(name) for name in PRESETS if name != "popularity" and not name.endswith("demo")}
"""All that is trained; the demos differ from others in what is made equal here."""
LOSSES = {
    "binary": small("sasrec", loss_function=BinaryLoss(3, block=16)),
    "distance": small("stosa", loss_function=DistanceLoss()),
}
TILES = small("sasrec", loss_function=SoftmaxLoss(block=16, chunk=24))


@functools.cache
def initial_params(model) -> Params:
    """On the host, for every layout."""
    return jax.device_get(jax.jit(model.init)(jax.random.key(0)))


class Training:
    """A model in training in one layout."""

    def __init__(self, model, layout: str, source: str = "grain", optimizer: OptimizerConfig = SGD):
        self.placement = Placement(LAYOUTS[layout])
        generator = np.random.default_rng(0)
        lengths = generator.integers(3, 13, 160)  # unequal: so are the devices
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        items = generator.integers(1, NUM_ITEMS + 1, offsets[-1]).astype(np.int32)
        plan = plan_windows(
            offsets[:-1],
            offsets[1:],
            max_length=LENGTH,
            batch_targets=ROWS if model.target_positions == "last" else ROWS * LENGTH,
            steps=STEPS,
            positions=model.target_positions,
            length_buckets=False,
        )
        assert plan.steps == STEPS
        self.model = model
        self.update = make_optimizer(optimizer, steps_per_epoch=1, total_steps=10)
        params = initial_params(model)
        self.state = self.placement.put_state(TrainState(params, self.update.init(params), np.int32(0)))
        self.feed = make_feed(source, items, plan, self.placement)
        self.step = self.placement.compile_step(model, self.update, on_device=self.feed.on_device)
        self.key = jax.device_put(jax.random.key(1), self.placement.replicated)
        self.metrics = []

    def start(self) -> "Training":
        """Makes the initial values anew, where each belongs."""
        self.state = self.placement.create_state(self.model, self.update, jax.random.key(0))
        return self

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
    """``model/way/…``; the way ``one`` is what the others are compared with. And ``counters/…``."""
    runs = [(name, way, model) for name, model in MODELS.items() for way in ("one", "2x4", "pmap-device")]
    runs += [
        (name, way, MODELS[name]) for name in ("sasrec", "diffurec") for way in ("8x1", "8x1-device", "pmap")
    ]
    runs += [(name, way, model) for name, model in LOSSES.items() for way in ("one", "1x8")]
    runs += [("sasrec", way, MODELS["sasrec"]) for way in ("4x2", "1x8", "2x4-device")]
    runs += [("sasrec", "1x8-tiles", TILES)]
    results = {}
    for name, way, model in runs:
        source = "device" if way.endswith("-device") else "grain"
        optimizer = CLIPPED if name == "awrsr" else SGD
        training = Training(model, way.split("-")[0], source, optimizer)
        if (name, way) == ("sasrec", "2x4"):  # which draws the parts of the table, too
            training.start()
        training.run(3)
        for part in ("params", "optimizer_state"):  # the latter holds AWRSR's average
            results |= named(f"{name}/{way}", training.result(part))
        training.feed.close()
    for sizes, names in (((8,), ("data",)), ((4, 2), ("data", "model"))):
        results[f"counters/{len(sizes)}"] = counters_on_devices(sizes, names)
    return results


def counters_on_devices(sizes: tuple[int, ...], names: tuple[str, ...]) -> np.ndarray:
    """``row_counters`` of a batch of 16 rows under ``shard_map``, put together again."""
    mesh = jax.make_mesh(sizes, names)

    def part():
        with rows_split_over(names):
            return row_counters((16 // 8, 3, 5))

    whole = jax.shard_map(part, mesh=mesh, in_specs=(), out_specs=PartitionSpec(names), check_vma=False)
    return np.asarray(jax.jit(whole)())


def state() -> dict[str, np.ndarray]:
    """Of STOSA, which has two item tables, under AdamW."""
    trainings = {way: Training(MODELS["stosa"], way, optimizer=ADAM).start() for way in ("one", "2x4", "8x1")}
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
        "table": (PopularityRecommender(num_items=NUM_ITEMS), LAYOUTS["2x4"]),
        "items": (WithItemsOfItsOwn(num_items=NUM_ITEMS), LAYOUTS["2x4"]),
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
