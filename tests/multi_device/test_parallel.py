"""What a placement asks of the devices; that all ways of training are equal is in ``test_training.py``."""

import jax
import pytest

from jaxrec.mesh import ParallelConfig
from jaxrec.train.parallel import Placement


def test_more_devices_than_there_are():
    with pytest.raises(ValueError, match=r"asks for 1000 devices, and \d+ cpu devices are there"):
        Placement(ParallelConfig(devices=1000))


def test_placement_takes_all_devices_by_default():
    assert Placement(ParallelConfig()).num_devices == jax.device_count()
