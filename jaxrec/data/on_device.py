"""Training windows drawn inside the compiled call: the flat log lives in device memory.

No host work and no transfer but three numbers a call, the seed among them, so that all seeds share their programs.
The windows are those of the Grain pipeline, index for index, because both cut them with ``windows.cut_windows``.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from jaxrec.batch import SequenceBatch
from jaxrec.data.windows import Bucket, TargetPositions, WindowPlan, cut_windows
from jaxrec.devices.sharding import place
from jaxrec.typing import Array

MEMORY_SHARE = 0.2
LARGEST_INDEX = 2**31 - 1


class BucketShape(NamedTuple):
    """What is static in a call: which bucket, and how its batches are cut."""

    number: int
    length: int
    shortest: int
    rows_per_batch: int
    num_rows: int
    steps: int
    positions: TargetPositions


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DeviceCall:
    """The input of one call, from which the device cuts its own batches.

    Attributes:
      items: int32 ``[N]``, the flat log.
      starts: int32 ``[U]``, first item of each user.
      num_targets: int32 ``[U]``.
      first_row: int32 ``[U + 1]``, rows of the users in this bucket.
      numbers: uint32 ``[3]``: the plan's seed, how often the stream had been through the bucket at the call's first
        row, and that row's place in its pass.
      shape: static.
    """

    items: Array
    starts: Array
    num_targets: Array
    first_row: Array
    numbers: Array
    shape: BucketShape = dataclasses.field(metadata={"static": True})

    def batches(self, part: Array | int = 0, parts: int = 1) -> SequenceBatch:
        """The call's batches ``[S, B / parts, L]``: slice ``part`` of the rows of each."""
        shape, (seed, first_pass, first_place) = self.shape, self.numbers
        rows = shape.rows_per_batch // parts
        step = jnp.arange(shape.steps, dtype=jnp.uint32)[:, None] * shape.rows_per_batch
        row = jnp.uint32(part) * rows + jnp.arange(rows, dtype=jnp.uint32)[None, :]
        stream = (first_place + step + row).reshape(-1)
        size = jnp.uint32(shape.num_rows)
        flat = cut_windows(
            self.items,
            self.starts,
            self.num_targets,
            Bucket(shape.length, shape.shortest, self.first_row, shape.rows_per_batch, shape.num_rows),
            shape.number,
            first_pass + stream // size,
            stream % size,
            shape.positions,
            seed,
            jnp,
        )
        return SequenceBatch(*(part.reshape(shape.steps, rows, shape.length) for part in flat))


class DeviceLog:
    """A log and its plan in device memory; makes the input of any call.

    Attributes:
      plan: the windows and their order.
    """

    def __init__(self, items: np.ndarray, plan: WindowPlan, sharding: NamedSharding):
        """Copies the log to the devices of ``sharding`` (replicated), of this process or of several.

        Raises:
          ValueError: the log or the plan is too long for 32-bit numbers.
        """
        if (largest := _largest_number(len(items), plan)) > LARGEST_INDEX:
            raise ValueError(
                f"a log of {len(items):,} interactions counts up to {largest:,}, and devices count with 32 bits; set"
                " train.batch_source to grain"
            )
        self.plan = plan
        self.sharding = sharding

        def put(array: np.ndarray) -> Array:
            return place(np.asarray(array, np.int32), sharding.mesh, sharding.spec)

        self._items, self._starts, self._num_targets = put(items), put(plan.starts), put(plan.num_targets)
        self._first_rows = [put(bucket.first_row) for bucket in plan.buckets]

    def call(self, index: int) -> DeviceCall:
        """The input of call ``index``."""
        plan = self.plan
        number, first = plan.call(index)
        bucket = plan.buckets[number]
        first_pass, first_place = divmod(first, bucket.num_rows)
        numbers = np.asarray([plan.seed, first_pass, first_place], np.uint32)
        shape = BucketShape(
            number,
            bucket.length,
            bucket.shortest,
            bucket.rows_per_batch,
            bucket.num_rows,
            plan.steps,
            plan.positions,
        )
        return DeviceCall(
            self._items,
            self._starts,
            self._num_targets,
            self._first_rows[number],
            place(numbers, self.sharding.mesh, self.sharding.spec),
            shape=shape,
        )


def _largest_number(num_items: int, plan: WindowPlan) -> int:
    """The largest index that a device counts to: of the log, or of a call's rows."""
    return max(num_items, *(bucket.num_rows + plan.steps * bucket.rows_per_batch for bucket in plan.buckets))


def fits_on_device(num_items: int, plan: WindowPlan) -> bool:
    """Whether a log of ``num_items`` interactions may live in device memory: an accelerator, with room to spare.

    On the CPU device memory is host memory, and the Grain pipeline runs beside the step, so it is preferred.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return False
    if _largest_number(num_items, plan) > LARGEST_INDEX:
        return False
    stats = device.memory_stats() or {}
    needed = 4 * (num_items + len(plan.starts) * (2 + len(plan.buckets)))
    return needed < MEMORY_SHARE * stats.get("bytes_limit", 0)


__all__ = ["BucketShape", "DeviceCall", "DeviceLog", "fits_on_device"]
