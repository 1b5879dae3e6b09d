"""Norms and sums of gradients: as optax has them on whole parameters, and alike where item tables are split."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrec.devices.item_table import table_split_over
from jaxrec.train.gradients import add_over_devices, clip_by_norm, gradient_norm

TABLE = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
GRADIENT = {"item_embedding": {"table": TABLE}, "dense": {"kernel": TABLE[:3] * 2}}
PARTS = {
    "item_embedding": {"table": TABLE.reshape(4, 2, 3)},
    "dense": {"kernel": GRADIENT["dense"]["kernel"]},
}
IN_PARTS = {"item_embedding": {"table": 0}, "dense": {"kernel": None}}


def over_parts(function):
    """A function of the gradient, on each of 4 devices that have a part of the table each."""

    def of_part(gradient):
        with table_split_over("model"):
            return function(gradient)

    return jax.vmap(of_part, in_axes=(IN_PARTS,), axis_name="model")(PARTS)


def test_norm_is_that_of_all_parameters():
    expected = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(GRADIENT)))
    np.testing.assert_allclose(gradient_norm(GRADIENT), expected, rtol=1e-6)
    np.testing.assert_allclose(over_parts(gradient_norm), np.full(4, expected), rtol=1e-6)


@pytest.mark.parametrize("largest", [0.5, 100.0])
def test_clipping_is_that_of_optax(largest):
    expected, _ = optax.clip_by_global_norm(largest).update(GRADIENT, optax.EmptyState())
    transformation = clip_by_norm(largest)
    state = transformation.init(GRADIENT)
    assert state == optax.EmptyState()  # checkpoints of a run that clips stay readable
    clipped, _ = transformation.update(GRADIENT, state)
    parts = over_parts(lambda gradient: transformation.update(gradient, state)[0])
    for path, wanted in jax.tree.leaves_with_path(expected):
        found, part = (dict(jax.tree.leaves_with_path(tree))[path] for tree in (clipped, parts))
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        if "item_embedding" not in jax.tree_util.keystr(path):
            wanted = np.broadcast_to(wanted, part.shape)
        np.testing.assert_allclose(part.reshape(wanted.shape), wanted, rtol=1e-6)


def test_parts_of_a_table_are_added_over_the_devices_that_hold_the_same():
    def added(gradient):
        with table_split_over("model"):
            return add_over_devices(gradient, ("data", "model"))

    inner = jax.vmap(added, in_axes=(IN_PARTS,), axis_name="model")
    summed = jax.vmap(inner, axis_name="data", axis_size=2, in_axes=None)(jax.tree.map(jnp.asarray, PARTS))
    table, kernel = summed["item_embedding"]["table"], summed["dense"]["kernel"]
    np.testing.assert_allclose(table, np.broadcast_to(2 * PARTS["item_embedding"]["table"], table.shape))
    np.testing.assert_allclose(
        kernel, np.broadcast_to(8 * GRADIENT["dense"]["kernel"], kernel.shape), rtol=1e-6
    )
