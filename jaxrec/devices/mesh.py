"""The devices of a run as a mesh of two axes, and how arrays lie on it.

``data`` spreads the rows of a batch; ``model`` spreads the rows of the item table, where one device cannot
or should not hold it whole. Training, evaluation and recommendation share this module.
"""

import dataclasses
from typing import Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrec.choices import check_choices

DATA_AXIS, MODEL_AXIS = "data", "model"


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How work is spread over devices.

    Attributes:
      mode: how the training step is compiled for the devices: ``jit`` (of ``shard_map`` over a mesh with named
        shardings), or ``pmap`` (one process, whole item table).
      devices: how many devices take part; 0 takes all there are.
      model_devices: over how many of the devices the rows of the item table and of its optimizer state are split;
        groups of so many hold the whole table together. 1 keeps the table whole on every device.

    Raises:
      ValueError: a number is out of range, the devices do not divide, or ``pmap`` with a split table.
    """

    mode: Literal["jit", "pmap"] = "jit"
    devices: int = 0
    model_devices: int = 1

    def __post_init__(self):
        check_choices(self)
        if self.devices < 0:
            raise ValueError(f"parallel.devices must not be negative, got {self.devices}")
        if self.model_devices < 1:
            raise ValueError(f"parallel.model_devices must be at least 1, got {self.model_devices}")
        if self.devices % self.model_devices:
            raise ValueError(
                f"parallel.devices is {self.devices}, which parallel.model_devices = {self.model_devices} does not"
                " divide"
            )
        if self.mode == "pmap" and self.model_devices > 1:
            raise ValueError(
                "parallel.mode=pmap holds the whole item table on every device; take mode=jit to split it over"
                f" {self.model_devices}"
            )

    def device_count(self) -> int:
        """Devices that will be used.

        Raises:
          ValueError: more are asked for than there are, or ``model_devices`` does not divide them.
        """
        available = jax.device_count()
        if self.devices > available:
            raise ValueError(
                f"parallel.devices asks for {self.devices} devices, and {available} {jax.default_backend()} devices"
                " are there; lower it, or leave it 0 to take all"
            )
        count = self.devices or available
        if count % self.model_devices:
            raise ValueError(
                f"parallel.model_devices is {self.model_devices}, which does not divide the {count} devices there are"
            )
        return count


def make_mesh(config: ParallelConfig) -> Mesh:
    """The mesh ``(data, model)`` of a config; ``model`` runs fastest, so that a table's parts lie close together."""
    return mesh_of(config.device_count(), config.model_devices)


def mesh_of(devices: int, model_devices: int) -> Mesh:
    """The mesh of the first ``devices`` there are, every ``model_devices`` of them a row along ``model``."""
    grid = np.asarray(jax.devices()[:devices]).reshape(-1, model_devices)
    return Mesh(grid, (DATA_AXIS, MODEL_AXIS), axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


__all__ = ["DATA_AXIS", "MODEL_AXIS", "ParallelConfig", "make_mesh", "mesh_of", "replicated"]
