"""The training loop: calls, evaluations, checkpoints, early stopping; resumable at any moment.

Training goes by calls, each of several optimizer steps (see ``TrainConfig``).

Several processes run the loop side by side and must take every decision alike, or they wait for each other for ever.
Most decisions follow from numbers that are the same in all (calls, the loss, the record read from a checkpoint). Two
do not: whether any process got a signal to stop, and whether a checkpoint is due by the clock of process 0. With each
call the processes start exchanging these, and act on the answer one call later, so that no call waits for it.
Validation scores are those of process 0.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from jaxrec.data.windows import WindowPlan
from jaxrec.devices import processes
from jaxrec.devices.sharding import WHOLE, place
from jaxrec.metrics import SELECTION_METRIC
from jaxrec.recommender import Recommender
from jaxrec.train.averaging import params_to_rank
from jaxrec.train.checkpoint import Checkpoints, shapes_of
from jaxrec.train.feed import make_feed
from jaxrec.train.logging import Reporter, Silent
from jaxrec.train.optimizer import OptimizerConfig, make_optimizer
from jaxrec.train.options import TrainConfig
from jaxrec.train.parallel import Placement
from jaxrec.train.progress import Pace, Progress, TrainResult, check_going_on
from jaxrec.train.state import TrainState
from jaxrec.train.stopping import StopRequest, stop_signals
from jaxrec.typing import Params

logger = logging.getLogger(__name__)


class Trainer:
    """One training run: owns the state, the data iterator and the record of progress.

    Attributes:
      plan: the windows and their order.
      config: of the loop.
      placement: the devices.
      checkpoints: where the state is saved.
      evaluate: from parameters to validation metrics, or ``None``.
      reporter: told of the progress.
      total_calls: calls from the start to the last epoch.
      step_key: the key that each step folds its number into.
      feed: yields the inputs of each call.
      compiled_step: runs a call.
      state: parameters, optimizer state and step count.
      progress: the record that lies in every checkpoint.
    """

    def __init__(
        self,
        recommender: Recommender,
        items: np.ndarray,
        plan: WindowPlan,
        placement: Placement,
        config: TrainConfig,
        optimizer_config: OptimizerConfig,
        *,
        checkpoints: Checkpoints,
        evaluate: Callable[[Params], dict[str, float]] | None,
        seed: int,
        select_by: str = SELECTION_METRIC,
        reporter: Reporter | None = None,
    ):
        """Sets up the state, fresh or from the newest readable checkpoint.

        Args:
          recommender: the model whose loss is minimised.
          items: int32 ``[N]``, the flat log.
          plan: its windows.
          placement: the devices, and where state and batches lie.
          config: of the loop.
          optimizer_config: of the optimizer.
          checkpoints: where to save and to resume from.
          evaluate: from parameters to validation metrics, ``select_by`` among them; ``None`` trains for all
            epochs and keeps the last parameters.
          seed: decides the initial parameters and the steps' keys.
          select_by: the metric whose highest value chooses the checkpoint.
          reporter: told of the progress.

        Raises:
          ValueError: the devices or the model do not fit the placement, or the training found in the checkpoints
            cannot go on with these settings.
          CheckpointError: there are checkpoints, and none can be read.
        """
        processes.connect(placement.mesh)
        self.plan, self.config, self.placement = plan, config, placement
        self.checkpoints, self.evaluate, self.select_by = checkpoints, evaluate, select_by
        self.reporter = reporter or Silent()
        steps_per_epoch = plan.calls_per_epoch * plan.steps
        self.total_calls = plan.first_call(config.epochs)
        optimizer = make_optimizer(
            optimizer_config,
            steps_per_epoch=steps_per_epoch,
            total_steps=max(self.total_calls * plan.steps, 1),
        )
        step_key = jax.random.fold_in(jax.random.key(seed, impl=config.random_bits), 1)
        self.step_key = place(step_key, placement.mesh, WHOLE)
        self.feed = make_feed(config.batch_source, items, plan, placement)
        self.compiled_step = placement.compile_step(
            recommender, optimizer, on_device=self.feed.on_device, accumulate=config.accumulate
        )
        self.state, self.progress = self._begin(recommender, optimizer, seed)
        self._pending: dict[str, Any] | None = None
        self._poll = processes.Poll()
        self._asked: Any = None
        self._stop = 0
        self._save_is_due = False
        self._last_checkpoint = self._clock = time.monotonic()
        self._pace = Pace()

    def _begin(
        self, recommender: Recommender, optimizer: optax.GradientTransformation, seed: int
    ) -> tuple[TrainState, Progress]:
        """State and record of the newest readable checkpoint, the feed put at its call; else fresh ones."""
        restored = None
        if self.checkpoints.steps():
            # Only shapes are needed to restore: a fresh state beside the restored one would take its memory twice.
            shapes = self.placement.state_shapes(recommender, optimizer)
            restored = self.checkpoints.restore_latest(shapes, self.feed.checkpointable)
        if restored is None:
            progress = Progress(batch_rows=[bucket.rows_per_batch for bucket in self.plan.buckets])
            return self.placement.create_state(recommender, optimizer, jax.random.key(seed)), progress
        state, record = restored
        progress = Progress(**record)
        directory, num_devices = self.checkpoints.directory, self.placement.num_devices
        check_going_on(progress, self.plan, self.config, directory, num_devices)
        self.feed.seek(progress.call)
        return state, progress

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.progress.call * self.plan.steps

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done or patience is over."""
        return self.progress.finished(self.config)

    @property
    def epoch(self) -> float:
        """Epochs done, as a fraction."""
        return self.progress.call / self.plan.calls_per_epoch

    def run(self) -> TrainResult:
        """Trains until the last epoch, early stopping or a signal; returns the best parameters.

        Raises:
          FloatingPointError: the loss is not finite.
          OSError: a checkpoint cannot be written.
        """
        with contextlib.closing(self.feed), contextlib.closing(self.reporter):
            self.reporter.start(self.config.epochs, {"step": self.step, "epoch": self.epoch})
            with stop_signals() as stop:
                while not self.finished and not self._stopping(stop):
                    self._train_until_evaluation(stop)
                    if not self._stopping(stop):
                        self._evaluate()
                interrupted = 0 if self.finished else self._stopping(stop)
                if interrupted:
                    self._save()
            self.checkpoints.wait()
        params, step = self._best_params()
        return TrainResult(params, step, self.progress, interrupted)

    def _train_until_evaluation(self, stop: StopRequest) -> None:
        target_epoch = min(self.progress.evaluated_epoch + self.config.evaluate_every, self.config.epochs)
        end = self.plan.first_call(target_epoch)
        while self.progress.call < end and not self._stopping(stop):
            self._dispatch(stop)
            if self._save_is_due and self.progress.call < end:
                self._save()
        self._collect()

    def _stopping(self, stop: StopRequest) -> int:
        """Number of the signal to stop at, 0 if there is none; with several processes, one that all know of."""
        return self._stop if self._poll.shared else stop.number

    def _dispatch(self, stop: StopRequest) -> None:
        """Starts the next call, then collects the metrics of the one before it."""
        inputs = next(self.feed)
        with jax.transfer_guard("disallow"):
            self.state, metrics = self.compiled_step(self.state, inputs, self.step_key)
        self._collect()
        self._pending = metrics
        self.progress.call += 1
        minutes = (time.monotonic() - self._last_checkpoint) / 60
        due = minutes > self.config.checkpoint_minutes and processes.is_main()
        self._asked = self._poll.ask(stop.number, due)
        if not self._poll.shared:
            self._hear()

    def _collect(self) -> None:
        """Fetches the metrics of the last dispatched call, if they are still out."""
        if self._pending is None:
            return
        metrics = {name: float(value) for name, value in jax.device_get(self._pending).items()}
        self._pending = None
        self._hear()
        now = time.monotonic()
        elapsed, self._clock = now - self._clock, now
        self.progress.seconds += elapsed
        self.progress.targets += metrics["weight"]
        if not metrics.pop("finite"):
            raise FloatingPointError(
                f"the loss is not finite at or before step {self.step}; {self._last_good()}. Lower the learning rate,"
                " clip the gradient (optimizer.clip_norm), or use float32"
            )
        self.progress.loss_sum += metrics["loss"] * metrics["weight"]
        self.progress.loss_targets += metrics["weight"]
        self._pace.add(metrics.pop("weight"), elapsed)
        record = {"step": self.step, "epoch": self.epoch, **metrics}
        record["targets_per_second"] = self._pace.targets_per_second
        record["seconds_left"] = self._pace.seconds_for(self.total_calls - self.progress.call)
        self.reporter.steps(record)

    def _last_good(self) -> str:
        """Where to go back to, in words."""
        if self.checkpoints.temporary:
            return "without a workdir no checkpoint is kept, so give one to go back to the last good one"
        good = self.checkpoints.steps()
        return f"last good checkpoint: {self.checkpoints.directory / str(good[-1]) if good else 'none yet'}"

    def _hear(self) -> None:
        """Takes the answer to what was asked with the last call whose metrics were collected."""
        if self._asked is not None:
            self._stop, self._save_is_due = self._poll.read(self._asked)
            self._asked = None

    def _evaluate(self) -> None:
        progress, former = self.progress, self.progress.evaluated_epoch
        progress.evaluated_epoch = min(former + self.config.evaluate_every, self.config.epochs)
        if former and progress.call == self.plan.first_call(former):
            return  # epochs of little data may have no call of their own
        score = None
        if self.evaluate is not None:
            found = self.evaluate(params_to_rank(self.state))
            metrics = processes.from_main({name: float(value) for name, value in found.items()})
            score = metrics[self.select_by]
            better = score > progress.best_score
            progress.best_score = max(score, progress.best_score)
            progress.evaluations_since_best = 0 if better else progress.evaluations_since_best + 1
            now = time.monotonic()
            progress.seconds += now - self._clock
            self._clock = now
            loss = progress.loss_sum / max(progress.loss_targets, 1.0)
            progress.loss_sum = progress.loss_targets = 0.0
            record = {"step": self.step, "epoch": self.epoch, "loss": loss, "best": better}
            record |= {"selected_by": self.select_by, "seconds": progress.seconds}
            self.reporter.evaluation({**record, **metrics})
        self._save(score)

    def _save(self, score: float | None = None) -> None:
        self._collect()
        self._save_is_due = False
        record = dataclasses.asdict(self.progress)
        self.checkpoints.save(self.step, self.state, self.feed.checkpointable, record, score=score)
        self._last_checkpoint = time.monotonic()

    def _best_params(self) -> tuple[Params, int]:
        if self.progress.best_score < 0 or self.checkpoints.best_step() in (None, self.step):
            return params_to_rank(self.state), self.step
        shapes = shapes_of(self.state)
        jax.tree.map(lambda leaf: leaf.delete(), self.state)  # room for the best one
        self.state, step = self.checkpoints.restore_best(shapes)
        return params_to_rank(self.state), step


__all__ = ["Trainer"]
