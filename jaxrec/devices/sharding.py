"""Where users and items lie when a mesh ranks: users over all devices, the item table's rows over ``model``.

The pure functions that rank (``jaxrec.lists``, ``jaxrec.train.ranking``) take a mesh and place what they
are given by the functions here. Every process of a run over several hosts gives the same arguments, and gets
results that are whole on each of its devices.
"""

import math
from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrec.devices.item_table import is_item_table
from jaxrec.devices.mesh import DATA_AXIS, MODEL_AXIS, ParallelConfig, mesh_of
from jaxrec.typing import Array, Params

Tree = TypeVar("Tree")

WHOLE = PartitionSpec()
USERS = PartitionSpec((DATA_AXIS, MODEL_AXIS))
"""Rows of a batch, a part for every device."""
DATA_ROWS = PartitionSpec(DATA_AXIS)
"""Rows of a batch where they meet the item table: devices that hold the parts of one table see the same rows."""
ITEM_ROWS = PartitionSpec(MODEL_AXIS)
"""Rows of the item table, and of what is known of each item."""
CPU_USERS, CPU_USERS_OF_LAST, ACCELERATOR_USERS = 256, 64, 2048
"""Users of one dispatch, unless a number is asked for: in all on CPUs, for each device of another kind.

A model of one target a window goes through its blocks again at every reverse step: there they weigh more than the
ranking, and run fastest on so few histories that what they pass on stays in a CPU's caches.
"""
CPU_PAIRS, ACCELERATOR_PAIRS = 256 * 50**2, 2**28
"""Pairs of positions in the histories of one dispatch: on CPUs so few that a head's weights stay in the caches."""


def available_mesh(config: ParallelConfig) -> Mesh | None:
    """The mesh of a config with the devices there are, or ``None`` where that is one device.

    Where fewer are there than the config asks for, all of them are taken, and the item table is split over as
    many as divide both: a run may rank on other devices than it was trained on.
    """
    available = jax.device_count()
    count = min(config.devices or available, available)
    if count == 1:
        return None
    return mesh_of(count, math.gcd(config.model_devices, count))


class UsersAtOnce(NamedTuple):
    """The most that one dispatch holds, of all devices together.

    Attributes:
      batch_size: users.
      pairs: users times the square of their histories' length (attention grows with it); ``None`` is any number.
    """

    batch_size: int
    pairs: int | None = None


def users_at_once(
    batch_size: int | None, mesh: Mesh | None, positions: Literal["all", "last"] = "all"
) -> UsersAtOnce:
    """``batch_size`` users, whatever their histories; for ``None`` as many as keep the devices busy.

    ``positions`` are the model's ``target_positions``.
    """
    if batch_size is not None:
        return UsersAtOnce(batch_size)
    if jax.default_backend() == "cpu":  # beyond, a batch no longer fits the caches
        return UsersAtOnce(CPU_USERS_OF_LAST if positions == "last" else CPU_USERS, CPU_PAIRS)
    devices = 1 if mesh is None else mesh.size
    return UsersAtOnce(ACCELERATOR_USERS * devices, ACCELERATOR_PAIRS * devices)


def several_devices(mesh: Mesh | None) -> Mesh | None:
    """The mesh if it has several devices, else ``None``: then nothing needs to be placed.

    Raises:
      ValueError: its axes are not those of ``jaxrec.devices.mesh``.
    """
    if mesh is None:
        return None
    if tuple(mesh.axis_names) != (DATA_AXIS, MODEL_AXIS):
        raise ValueError(
            f"the mesh has the axes {tuple(mesh.axis_names)}, and ranking needs {(DATA_AXIS, MODEL_AXIS)}: make it"
            " with jaxrec.devices.make_mesh"
        )
    return mesh if mesh.size > 1 else None


def split_axis(mesh: Mesh | None) -> str | None:
    """The axis over which the item table is split; ``None`` where every device holds it whole."""
    return MODEL_AXIS if mesh is not None and mesh.shape[MODEL_AXIS] > 1 else None


def place(tree: Tree, mesh: Mesh, spec: PartitionSpec) -> Tree:
    """The arrays of a tree, from the host or from any devices, on a mesh; traced ones are left alone."""
    return jax.tree.map(lambda leaf: _place(leaf, NamedSharding(mesh, spec)), tree)


def _place(array: Array | np.ndarray, sharding: NamedSharding) -> Array:
    if isinstance(array, jax.core.Tracer):
        return array
    on_devices = isinstance(array, jax.Array)
    if jax.process_count() == 1 or (on_devices and not array.is_fully_addressable):
        return jax.device_put(array, sharding)
    if on_devices and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        words = _place(jax.random.key_data(array), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(array))
    host = np.asarray(array)  # every process holds all of it
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def place_rows(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays of rows of users ``[B, ...]`` as ``USERS``; whole, where the devices do not divide B."""
    return jax.tree.map(lambda leaf: place(leaf, mesh, WHOLE if leaf.shape[0] % mesh.size else USERS), tree)


def place_items(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays with a row an item ``[V, ...]`` as ``ITEM_ROWS``; whole, where the devices do not divide V."""
    return jax.tree.map(
        lambda leaf: place(leaf, mesh, WHOLE if leaf.shape[0] % mesh.shape[MODEL_AXIS] else ITEM_ROWS), tree
    )


def param_shardings(shapes: Params, mesh: Mesh | None) -> Params:
    """How parameters (or their shapes) lie on a mesh: item tables as ``ITEM_ROWS``, all else whole.

    A table whose rows the devices do not divide is whole too. Without a mesh, the first device has everything.
    """
    if mesh is None:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.tree.map(lambda _: device, shapes)
    parts = mesh.shape[MODEL_AXIS]

    def of(path: tuple, leaf: Array) -> NamedSharding:
        split = is_item_table(path) and leaf.shape[0] % parts == 0
        return NamedSharding(mesh, ITEM_ROWS if split else WHOLE)

    return jax.tree_util.tree_map_with_path(of, shapes)


def place_params(params: Params, mesh: Mesh) -> Params:
    """Parameters on a mesh, see ``param_shardings``; what lies on this mesh already stays as it is."""

    def place_leaf(leaf: Array, wanted: NamedSharding) -> Array:
        sharding = None if isinstance(leaf, jax.core.Tracer) else getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh == mesh:
            return leaf
        return _place(leaf, wanted)

    return jax.tree.map(place_leaf, params, param_shardings(params, mesh))


def constrain(tree: Tree, mesh: Mesh | None, spec: PartitionSpec) -> Tree:
    """Inside a compiled program: arrays that lie so; unchanged without a mesh."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, spec))


def fill_rows(array: Array, multiple: int) -> Array:
    """``array`` with rows of zeros (False) added up to a multiple."""
    filling = -array.shape[0] % multiple
    return jnp.pad(array, [(0, filling)] + [(0, 0)] * (array.ndim - 1)) if filling else array


def split_items(tree: Tree, mesh: Mesh | None) -> Tree:
    """Inside a compiled program: arrays ``[V, ...]`` as ``ITEM_ROWS``, filled up if V does not divide."""
    if mesh is None:
        return tree
    filled = jax.tree.map(lambda leaf: fill_rows(leaf, mesh.shape[MODEL_AXIS]), tree)
    return constrain(filled, mesh, ITEM_ROWS)


__all__ = [
    "DATA_ROWS",
    "ITEM_ROWS",
    "USERS",
    "WHOLE",
    "UsersAtOnce",
    "available_mesh",
    "constrain",
    "fill_rows",
    "param_shardings",
    "place",
    "place_items",
    "place_params",
    "place_rows",
    "several_devices",
    "split_axis",
    "split_items",
    "users_at_once",
]
