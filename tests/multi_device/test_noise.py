"""Every preset trains alike on one device and on 8 fake ones, by jit over a mesh and by pmap, its noise included."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxrec.presets import PRESETS


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("noise") / "results.npz"
    worker = Path(__file__).with_name("noise_worker.py")
    subprocess.run([sys.executable, str(worker), str(path)], check=True)
    return dict(np.load(path))


def ways_of(results, model: str) -> set[str]:
    return {name.split("/")[1] for name in results if name.startswith(f"{model}/")}


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in PRESETS if name not in ("popularity", "vgenatt-demo")])
def test_presets_train_alike_on_one_device_and_on_eight(results, model):
    """Losses, gradient norms, weights and every parameter of four plain-SGD steps, to float32 rounding."""
    ways = ways_of(results, model) - {"one"}
    assert ways >= {"jit", "pmap-device"}
    expected = {name: value for name, value in results.items() if name.startswith(f"{model}/one/")}
    assert len(expected) > 3
    for way in ways:
        for name, value in expected.items():
            other = results[name.replace("/one/", f"/{way}/")]
            np.testing.assert_allclose(other, value, rtol=2e-5, atol=2e-7, err_msg=f"{way}: {name}")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["sasrec", "diffurec"])
def test_some_train_alike_in_every_way(results, model):
    """Batches from the host and cut on the devices, both with ``jit`` and with ``pmap``."""
    assert ways_of(results, model) == {"one", "jit", "pmap", "jit-device", "pmap-device"}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["8", "4x2"])
def test_counters_of_rows_under_shard_map(results, mesh):
    """Also over two axes, the second running fastest."""
    np.testing.assert_array_equal(results[f"counters/{mesh}"], np.arange(16 * 15).reshape(16, 3, 5))
