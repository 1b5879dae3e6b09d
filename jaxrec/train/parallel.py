"""Placing state and batches on devices, and compiling the step for them: ``jit`` over a mesh, or ``pmap``."""

from collections.abc import Callable

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from jaxrec.batch import SequenceBatch
from jaxrec.data.on_device import DeviceCall
from jaxrec.mesh import ParallelConfig, make_mesh, replicated
from jaxrec.recommender import Recommender
from jaxrec.train.state import TrainState
from jaxrec.train.step import Metrics, StepFunction, make_train_step, scan_steps
from jaxrec.typing import PRNGKey

InputStep = Callable[[TrainState, SequenceBatch | DeviceCall, PRNGKey], tuple[TrainState, Metrics]]


class Placement:
    """Where things live for one ``ParallelConfig``, and the compiled step that expects them there.

    Attributes:
      config: as given.
      mesh: axes ``"data"`` and ``"model"``.
    """

    def __init__(self, config: ParallelConfig):
        self.config = config
        self.mesh = make_mesh(config)
        self.replicated = replicated(self.mesh)
        self.batch_sharding = NamedSharding(self.mesh, PartitionSpec(None, "data"))

    @property
    def num_devices(self) -> int:
        """Devices that share each batch."""
        return self.mesh.size

    def put_state(self, state: TrainState) -> TrainState:
        """Copies the state to every device."""
        return jax.device_put(state, self.replicated)

    def put_batches(self, batches: SequenceBatch) -> SequenceBatch:
        """Spreads ``[S, B, L]`` arrays over the devices along B; under ``pmap``, in the layout it takes."""
        if self.config.mode == "pmap":
            split = jax.tree.map(
                lambda part: part.reshape(part.shape[0], self.num_devices, -1, *part.shape[2:]), batches
            )
            return jax.device_put(split, self.batch_sharding)
        if jax.process_count() > 1:
            return jax.tree.map(
                lambda part: jax.make_array_from_process_local_data(self.batch_sharding, part), batches
            )
        return jax.device_put(batches, self.batch_sharding)

    def compile_step(
        self, recommender: Recommender, optimizer: optax.GradientTransformation, *, on_device: bool = False
    ) -> InputStep:
        """Compiles ``steps(state, inputs, key)`` for S batches; the state's buffers are reused.

        Args:
          recommender: whose loss is minimised.
          optimizer: optax transformation.
          on_device: whether inputs are ``DeviceCall``, from which each device cuts its own rows, or batches as
            ``put_batches`` places them.
        """
        pmap = self.config.mode == "pmap"
        axis = "data" if pmap or self.num_devices > 1 else None
        steps = scan_steps(make_train_step(recommender, optimizer, axis_name=axis))
        if on_device:
            steps = self._cutting(steps, axis)
        if pmap:
            return self._pmap(steps, on_device)
        whole, rows = PartitionSpec(), PartitionSpec() if on_device else self.batch_sharding.spec
        if axis:
            # Every device runs the step on its own rows. Left to the partitioner, the loss (blocks of packed
            # tokens) would be gathered and computed by all.
            steps = jax.shard_map(
                steps,
                mesh=self.mesh,
                in_specs=(whole, rows, whole),
                out_specs=(whole, whole),
                check_vma=False,  # the step adds over the axis itself
            )
        return jax.jit(
            steps,
            in_shardings=(self.replicated, NamedSharding(self.mesh, rows), self.replicated),
            out_shardings=(self.replicated, self.replicated),
            donate_argnums=0,
        )

    def _pmap(self, steps: InputStep, on_device: bool) -> InputStep:
        """The steps under ``pmap``, state and key not stacked."""
        settings = {
            "axis_name": "data",
            "out_axes": (None, None),
            "devices": list(self.mesh.devices.flat),
            "donate_argnums": 0,
        }
        if not on_device:
            return jax.pmap(steps, in_axes=(None, 1, None), **settings)
        # pmap wants something to map over, also where each device cuts its own rows.
        numbers = jax.device_put(np.arange(self.num_devices), NamedSharding(self.mesh, PartitionSpec("data")))
        mapped = jax.pmap(
            lambda state, call, key, number: steps(state, call, key),
            in_axes=(None, None, None, 0),
            **settings,
        )
        return lambda state, call, key: mapped(state, call, key, numbers)

    def _cutting(self, steps: StepFunction, axis: str | None) -> InputStep:
        """The same steps from a ``DeviceCall``."""

        def cut_and_step(state: TrainState, call: DeviceCall, key: PRNGKey) -> tuple[TrainState, Metrics]:
            part = jax.lax.axis_index(axis) if axis else 0
            return steps(state, call.batches(part, self.num_devices), key)

        return cut_and_step


__all__ = ["Placement"]
