"""A training state with item tables split over 8 fake devices: layout, memory, checkpoints, refusals.

That training with them is training on one device is in ``test_training.py``.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import assert_arrays_equal, below, results_of

from jaxrec.devices.item_table import is_item_table
from jaxrec.presets import PRESETS, preset

pytestmark = pytest.mark.slow
ROWS, WIDTH, PARTS = 256, 16, 4  # of the state's tables, split 2x4
TABLES = 2 * 4  # means and covariances: parameters, two moments and the average


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    worker = Path(__file__).with_name("training_worker.py")
    return results_of(worker, "state", tmp_path_factory.mktemp("state"))


def test_initial_values_are_those_of_one_device(state):
    for way in ("2x4", "8x1"):
        assert_arrays_equal(below(state, f"initial/{way}"), below(state, "initial/one"), rtol=0, atol=0)


def test_tables_their_moments_and_averages_are_split_and_nothing_else(state):
    shards = below(state, "shards")
    tables = {name: shapes for name, shapes in shards.items() if "_embedding']['table']" in name}
    assert len(tables) == TABLES
    for name, shapes in shards.items():
        part = [ROWS // PARTS, WIDTH] if name in tables else shapes[0]
        np.testing.assert_array_equal(shapes, [shapes[0], part], err_msg=name)


def test_memory_falls_with_the_devices_that_share_the_table(state):
    tables = TABLES * ROWS * WIDTH * 4
    whole, split = int(state["bytes/8x1"]), int(state["bytes/2x4"])
    assert whole - split == tables - tables // PARTS


def test_a_checkpoint_goes_on_in_another_layout(state):
    """From 2x4 to one device and to 8x1, and from one device to 2x4."""
    for way in ("one", "8x1"):
        for stage, tolerance in (("restored", 0.0), ("after", 1e-6)):
            here, there = below(state, f"{stage}/{way}"), below(state, f"{stage}/2x4")
            metrics, expected = here.pop("metrics"), there.pop("metrics")
            assert_arrays_equal(here, there, rtol=tolerance, atol=tolerance)
            if stage == "after":
                np.testing.assert_allclose(metrics[-1], expected[-1], rtol=1e-5)
    back, one = below(state, "back/2x4"), below(state, "after/one")
    back.pop("metrics"), one.pop("metrics")
    assert_arrays_equal(back, one, rtol=0, atol=0)


def test_what_cannot_be_split_is_refused(state):
    said = {name: str(text) for name, text in below(state, "refused").items()}
    assert "model_devices is 3, which does not divide the 256 rows of the item table" in said["rows"]
    assert "the model has no item table to split" in said["table"]
    assert "WithItemsOfItsOwn.items gives 256 of 256 rows from a part of the item table" in said["items"]


@pytest.mark.parametrize("name", PRESETS)
def test_the_tables_of_every_preset_are_found(name):
    model = preset(name).model
    params = jax.eval_shape(dataclasses.replace(model, num_items=2500).init, jax.random.key(0))
    found = {
        jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(params) if is_item_table(path)
    }
    rows = {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree.leaves_with_path(params)
        if leaf.shape[:1] == (2560,) and leaf.ndim == 2
    }
    assert found == rows
    assert len(found) == {"popularity": 0, "stosa": 2}.get(name, 1)
