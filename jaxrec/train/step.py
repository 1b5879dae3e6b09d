"""The training step: pure, for any recommender, on one device or under a named axis."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxrec.batch import SequenceBatch
from jaxrec.devices.item_table import table_split_over
from jaxrec.devices.rows import rows_split_over
from jaxrec.recommender import Recommender
from jaxrec.train import gradients
from jaxrec.train.accumulation import parts_of, value_and_gradient
from jaxrec.train.state import TrainState
from jaxrec.typing import Array, PRNGKey

Metrics = dict[str, Array]
StepFunction = Callable[[TrainState, SequenceBatch, PRNGKey], tuple[TrainState, Metrics]]


def make_train_step(
    recommender: Recommender,
    optimizer: optax.GradientTransformation,
    axis_name: str | tuple[str, ...] | None = None,
    table_axis: str | None = None,
    parts_wanted: Callable[[SequenceBatch], int] = lambda batch: 1,
) -> StepFunction:
    """Builds ``step(state, batch, key) -> (state, metrics)`` for a batch of ``[B, L]`` arrays.

    The loss is the sum over the batch divided by the sum of its weights; with ``axis_name`` both sums, and
    the gradient, run over all devices of that axis. Draws follow the rows of the batch, so they are the same on
    any number of devices.

    Args:
      recommender: the model whose loss is minimised.
      optimizer: optax transformation.
      axis_name: axis of ``jax.pmap`` or ``shard_map`` over which the rows of a batch are split (a tuple of axes: the
        last runs fastest); ``None`` under plain ``jit``.
      table_axis: which of them the rows of item tables are split over, in parameters and optimizer state.
      parts_wanted: into how many parts, at most, the rows of a device's batch are split whose gradients are made one
        after the other.

    Returns:
      The step; ``metrics`` holds ``loss``, ``grad_norm``, ``weight`` (the number of targets) and the
      recommender's own metrics, each a float32 scalar. ``key`` is the run's key, not yet folded.
    """

    def add_over_devices(tree):
        return jax.lax.psum(tree, axis_name) if axis_name else tree

    @table_split_over(table_axis)
    def step(state: TrainState, batch: SequenceBatch, key: PRNGKey) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(key, state.step)
        weight = jnp.maximum(add_over_devices(jnp.sum(batch.weights)), 1.0)

        def mean_loss(params, rows):
            with rows_split_over(axis_name):
                output = recommender.loss(params, rows, step_key, step=state.step)
            return output.total / weight, output.metrics

        parts = parts_of(len(batch.items), parts_wanted(batch))
        (loss, sums), gradient = value_and_gradient(mean_loss, state.params, batch, parts)
        loss, sums = add_over_devices((loss, sums))
        gradient = gradients.add_over_devices(gradient, axis_name)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {name: value / weight for name, value in sums.items()}
        metrics |= {"loss": loss, "grad_norm": gradients.gradient_norm(gradient), "weight": weight}
        return TrainState(params, optimizer_state, state.step + 1), metrics

    return step


def scan_steps(step: StepFunction) -> StepFunction:
    """A call: a step on each of S batches, as one program; ``[S, B, L]`` arrays in, means of the metrics out.

    ``loss`` is the mean over steps, ``weight`` the sum, so that targets can be counted; ``finite`` says
    whether every loss was a number.
    """

    def steps(state: TrainState, batches: SequenceBatch, key: PRNGKey) -> tuple[TrainState, Metrics]:
        state, metrics = jax.lax.scan(lambda carry, batch: step(carry, batch, key), state, batches)
        means = {name: jnp.mean(values) for name, values in metrics.items()}
        means["weight"] = jnp.sum(metrics["weight"])
        means["finite"] = jnp.all(jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"]))
        return state, means

    return steps


__all__ = ["Metrics", "StepFunction", "make_train_step", "scan_steps"]
