"""Placing state and batches on devices, and compiling the step for them: ``jit`` over a mesh, or ``pmap``."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrec.batch import SequenceBatch
from jaxrec.data.on_device import DeviceCall
from jaxrec.devices.item_table import is_item_table
from jaxrec.devices.mesh import DATA_AXIS, MODEL_AXIS, ParallelConfig, make_mesh, replicated
from jaxrec.devices.sharding import param_shardings, split_axis
from jaxrec.recommender import Recommender
from jaxrec.train.accumulation import default_parts
from jaxrec.train.state import TrainState, create_state
from jaxrec.train.step import Metrics, StepFunction, make_train_step, scan_steps
from jaxrec.typing import Params, PRNGKey

BATCH_AXES = (DATA_AXIS, MODEL_AXIS)
"""The rows of a batch are spread over both axes, so that no device repeats another's work in the encoder."""

InputStep = Callable[[TrainState, SequenceBatch | DeviceCall, PRNGKey], tuple[TrainState, Metrics]]


class Placement:
    """Where things live for one ``ParallelConfig``, and the compiled step that expects them there.

    Attributes:
      config: how many devices there are, and how they share the work.
      mesh: the devices, with axes ``"data"`` and ``"model"``.
      replicated: sharding of arrays that every device of the mesh holds whole.
      batch_sharding: sharding of ``[S, B, ...]`` batches, their rows B spread over all devices.

    Raises:
      ValueError: the config asks for more devices than there are, or for a number that does not divide them.
    """

    def __init__(self, config: ParallelConfig):
        self.config = config
        self.mesh = make_mesh(config)
        self.replicated = self._whole = replicated(self.mesh)
        if config.mode == "pmap":
            # As pmap returns it: a state that comes back elsewhere than it went in is compiled for twice.
            self._whole = replicated(Mesh(self.mesh.devices.reshape(-1), (DATA_AXIS,)))
        self.batch_sharding = NamedSharding(self.mesh, PartitionSpec(None, BATCH_AXES))

    @property
    def num_devices(self) -> int:
        """Devices that share each batch."""
        return self.mesh.size

    @property
    def table_axis(self) -> str | None:
        """The mesh axis over which item tables are split; ``None`` if every device holds them whole."""
        return split_axis(self.mesh)

    def shardings(self, tree: Any) -> Any:
        """How parameters or a training state lie: item tables split by rows, everything else on every device.

        Args:
          tree: arrays or their shapes.

        Raises:
          ValueError: tables are to be split, and there is none, or its rows cannot be divided.
        """
        if self.table_axis is None:
            return jax.tree.map(lambda _: self._whole, tree)
        count = self.config.model_devices
        tables = [leaf for path, leaf in jax.tree.leaves_with_path(tree) if is_item_table(path)]
        if not tables:
            raise ValueError(
                f"parallel.model_devices is {count}, and the model has no item table to split (a parameter 'table' of"
                " a module named '..._embedding'); set it to 1"
            )
        for table in tables:
            if table.shape[0] % count:
                raise ValueError(
                    f"parallel.model_devices is {count}, which does not divide the {table.shape[0]} rows of the item"
                    " table; powers of 2 up to 128 always do"
                )
        return param_shardings(tree, self.mesh)

    def create_state(
        self, recommender: Recommender, optimizer: optax.GradientTransformation, key: PRNGKey
    ) -> TrainState:
        """A fresh state where it belongs; its numbers are those of one device. Raises as ``shardings`` does."""
        return create_state(recommender, optimizer, key, self._state_shardings(recommender, optimizer))

    def state_shapes(self, recommender: Recommender, optimizer: optax.GradientTransformation) -> TrainState:
        """What ``create_state`` gives, as ``jax.ShapeDtypeStruct``s with their shardings; nothing is made."""
        shapes = _shapes(recommender, optimizer)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self._checked_shardings(recommender, shapes),
        )

    def put_state(self, state: TrainState) -> TrainState:
        """Copies a state to the devices, see ``shardings``."""
        return jax.device_put(state, self.shardings(state))

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
        self,
        recommender: Recommender,
        optimizer: optax.GradientTransformation,
        *,
        on_device: bool = False,
        accumulate: int | None = None,
    ) -> InputStep:
        """Compiles ``steps(state, inputs, key)`` for S batches; the state's buffers are reused.

        Args:
          recommender: the model whose loss is minimised.
          optimizer: optax transformation.
          on_device: whether inputs are ``DeviceCall``, from which each device cuts its own rows, or batches as
            ``put_batches`` places them.
          accumulate: as in ``TrainConfig``.

        Returns:
          A function that runs a call: from a state, the inputs of S steps and the run's key to the new state and
          the means of the steps' metrics (see ``scan_steps``).

        Raises:
          ValueError: the item table is to be split, and cannot be.
        """
        pmap = self.config.mode == "pmap"
        axes = None
        if pmap or self.num_devices > 1:
            axes = DATA_AXIS if pmap else BATCH_AXES

        def parts_wanted(batch: SequenceBatch) -> int:
            return accumulate or default_parts(recommender, batch, self.mesh.devices.flat[0].platform)

        steps = scan_steps(make_train_step(recommender, optimizer, axes, self.table_axis, parts_wanted))
        if on_device:
            steps = self._cutting(steps, axes)
        if pmap:
            return self._pmap(steps, on_device)
        whole, rows = PartitionSpec(), PartitionSpec() if on_device else self.batch_sharding.spec
        state_shardings = self._state_shardings(recommender, optimizer)
        if axes:
            # Every device runs the step on its own rows. Left to the partitioner, the loss (blocks of packed
            # tokens) would be gathered and computed by all.
            state_specs = jax.tree.map(lambda sharding: sharding.spec, state_shardings)
            steps = jax.shard_map(
                steps,
                mesh=self.mesh,
                in_specs=(state_specs, rows, whole),
                out_specs=(state_specs, whole),
                check_vma=False,  # the step adds over the axes itself
            )
        return jax.jit(
            steps,
            in_shardings=(state_shardings, NamedSharding(self.mesh, rows), self.replicated),
            out_shardings=(state_shardings, self.replicated),
            donate_argnums=0,
        )

    def _state_shardings(self, recommender: Recommender, optimizer: optax.GradientTransformation) -> Any:
        """The shardings of a training state's leaves; one for all where nothing is split."""
        if self.table_axis is None:
            return self._whole
        return self._checked_shardings(recommender, _shapes(recommender, optimizer))

    def _checked_shardings(self, recommender: Recommender, shapes: TrainState) -> TrainState:
        """``shardings`` of a training state, if the model's ranking vectors can be split as its tables are."""
        shardings = self.shardings(shapes)
        if self.table_axis is not None:
            self._check_items(recommender, shapes.params, shardings.params)
        return shardings

    def _check_items(self, recommender: Recommender, shapes: Params, shardings: Params) -> None:
        """Refuses a model whose ranking vectors are not made row by row of its item tables."""
        parts = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(sharding.shard_shape(leaf.shape), leaf.dtype),
            shapes,
            shardings,
        )
        whole, part = (jax.eval_shape(recommender.items, params).shape[0] for params in (shapes, parts))
        if part * self.config.model_devices != whole:
            raise ValueError(
                f"{type(recommender).__name__}.items gives {part} of {whole} rows from a part of the item table, not 1"
                f" in {self.config.model_devices}, so the table cannot be split; set parallel.model_devices to 1"
            )

    def _pmap(self, steps: InputStep, on_device: bool) -> InputStep:
        """The steps under ``pmap``, state and key not stacked."""
        settings = {
            "axis_name": DATA_AXIS,
            "out_axes": (None, None),
            "devices": list(self.mesh.devices.flat),
            "donate_argnums": 0,
        }
        if not on_device:
            return jax.pmap(steps, in_axes=(None, 1, None), **settings)
        # pmap wants something to map over, also where each device cuts its own rows.
        numbers = jax.device_put(
            np.arange(self.num_devices), NamedSharding(self.mesh, PartitionSpec(DATA_AXIS))
        )
        mapped = jax.pmap(
            lambda state, call, key, number: steps(state, call, key),
            in_axes=(None, None, None, 0),
            **settings,
        )
        return lambda state, call, key: mapped(state, call, key, numbers)

    def _cutting(self, steps: StepFunction, axes: str | tuple[str, ...] | None) -> InputStep:
        """The same steps from a ``DeviceCall``."""

        def cut_and_step(state: TrainState, call: DeviceCall, key: PRNGKey) -> tuple[TrainState, Metrics]:
            part = jax.lax.axis_index(axes) if axes else 0
            return steps(state, call.batches(part, self.num_devices), key)

        return cut_and_step


def _shapes(recommender: Recommender, optimizer: optax.GradientTransformation) -> TrainState:
    """The shapes of a fresh training state; nothing is made."""
    return jax.eval_shape(lambda: create_state(recommender, optimizer, jax.random.key(0)))


__all__ = ["Placement"]
