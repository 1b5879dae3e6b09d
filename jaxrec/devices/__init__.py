"""Devices: the mesh, where arrays lie, whose row a draw belongs to, how products are rounded, several processes."""

from jaxrec.devices.mesh import ParallelConfig, make_mesh
from jaxrec.devices.sharding import place_params

__all__ = ["ParallelConfig", "make_mesh", "place_params"]
