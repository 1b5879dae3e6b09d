"""Every model trains alike on one device and in every layout over 8 fake ones, its noise and split tables included."""

from pathlib import Path

import numpy as np
import pytest
from helpers import assert_arrays_equal, below, results_of

from jaxrec.presets import PRESETS

pytestmark = pytest.mark.slow
TRAINED = [name for name in PRESETS if name != "popularity" and not name.endswith("demo")]


@pytest.fixture(scope="module")
def equal(tmp_path_factory):
    worker = Path(__file__).with_name("training_worker.py")
    return results_of(worker, "equal", tmp_path_factory.mktemp("equal"))


@pytest.mark.parametrize(
    ("model", "way"),
    [
        *((name, way) for name in TRAINED for way in ("2x4", "pmap-device")),
        *((name, way) for name in ("sasrec", "diffurec") for way in ("8x1", "8x1-device", "pmap")),
        *((name, "1x8") for name in ("binary", "distance")),
        *(("sasrec", way) for way in ("4x2", "1x8", "2x4-device", "1x8-tiles")),
    ],
)
def test_equal_to_one_device(equal, model, way):
    """Losses, norms of the gradient, weights and parameters, after six steps of plain SGD; AWRSR's average too.

    By ``jit`` over a mesh of data x model, and by ``pmap``; batches from the host, and cut on the devices.
    """
    expected = below(equal, f"{model}/one")
    assert_arrays_equal(below(equal, f"{model}/{way}"), expected, rtol=1e-5, atol=5e-7)
    assert np.ptp(expected["metrics"][:, 0]) > 1e-3  # something is learned


def test_one_of_them_was_clipped(equal):
    """Equal parameters then say that the norm clipped by, too, was that of the whole gradient."""
    assert (equal["awrsr/one/metrics"][:, 1] > 0.3).all()


@pytest.mark.parametrize("axes", [1, 2])
def test_counters_of_rows_under_shard_map(equal, axes):
    """Also over two axes, the second running fastest."""
    np.testing.assert_array_equal(equal[f"counters/{axes}"], np.arange(16 * 15).reshape(16, 3, 5))
