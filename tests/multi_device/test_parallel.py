"""jit over a mesh = pmap = one device, with batches from the host or cut on the device, on 8 fake CPU devices."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrec.mesh import ParallelConfig
from jaxrec.train.parallel import Placement


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("parallel") / "results.npz"
    worker = Path(__file__).with_name("worker.py")
    subprocess.run([sys.executable, str(worker), str(path)], check=True)
    return dict(np.load(path))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["jit", "pmap", "jit-device", "pmap-device"])
def test_equal_to_one_device(results, way):
    compared = 0
    for name, expected in results.items():
        model, kind, key = name.split("/", 2)
        if kind == "one":
            np.testing.assert_allclose(
                results[f"{model}/{way}/{key}"], expected, rtol=2e-4, atol=2e-6, err_msg=f"{model} {key}"
            )
            compared += 1
    assert compared > 10


def test_more_devices_than_there_are():
    with pytest.raises(ValueError, match=r"asks for 1000 devices, and \d+ cpu devices are there"):
        Placement(ParallelConfig(devices=1000))


def test_placement_takes_all_devices_by_default():
    assert Placement(ParallelConfig()).num_devices == jax.device_count()
