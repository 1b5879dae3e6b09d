"""How far a training has come: the record in its checkpoints, whether it can go on, how long it will take."""

import dataclasses
from pathlib import Path

from jaxrec.data.windows import WindowPlan
from jaxrec.train.options import TrainConfig
from jaxrec.typing import Params


@dataclasses.dataclass
class Progress:
    """The loop's own record; lies in every checkpoint.

    Attributes:
      call: calls done.
      best_score: best validation score so far (-1 before the first).
      evaluations_since_best: evaluations since the best score, for early stopping.
      evaluated_epoch: last epoch that was evaluated.
      seconds: time spent in training, evaluations included.
      targets: how many targets have been trained on.
      loss_sum: sum of the losses of all targets since the last evaluation.
      loss_targets: how many targets those are.
      batch_rows: rows of a batch of each length bucket, by which calls are counted.
    """

    call: int = 0
    best_score: float = -1.0
    evaluations_since_best: int = 0
    evaluated_epoch: int = 0
    seconds: float = 0.0
    targets: float = 0.0
    loss_sum: float = 0.0
    loss_targets: float = 0.0
    batch_rows: list[int] = dataclasses.field(default_factory=list)

    def finished(self, config: TrainConfig) -> bool:
        """Whether the last epoch is done or patience is over (it may not be with another config)."""
        return self.evaluations_since_best >= config.patience or self.evaluated_epoch >= config.epochs


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What training gives.

    Attributes:
      params: of the best checkpoint by the validation metric (of the last step if nothing was evaluated); with
        ``OptimizerConfig.ema_decay`` their average.
      step: optimizer steps at which they were taken.
      progress: the loop's record.
      interrupted: number of the signal (15 is SIGTERM, 2 is SIGINT) that ended training before its time,
        with the state saved; 0 if it went to its end.
    """

    params: Params
    step: int
    progress: Progress
    interrupted: int


def check_going_on(
    progress: Progress, plan: WindowPlan, config: TrainConfig, directory: Path, num_devices: int
) -> None:
    """Checks that a training can go on from what a checkpoint holds.

    Args:
      progress: the checkpoint's record.
      plan: the windows now.
      config: the loop's settings now.
      directory: where the checkpoints lie.
      num_devices: how many devices share the rows of a batch now.

    Raises:
      ValueError: the batches have other sizes (call n would be other windows, and epochs end elsewhere), or the
        training is longer already (its weights would be shown as those of fewer epochs).
    """
    rows = [bucket.rows_per_batch for bucket in plan.buckets]
    if progress.batch_rows != rows:
        raise ValueError(
            f"{directory} was written in training with {progress.batch_rows} rows a batch (by length), and on"
            f" {num_devices} devices they would be {rows}, so it cannot go on where it was; take as many devices as"
            " before, or a divisor of that number"
        )
    if progress.call > plan.first_call(config.epochs) or progress.evaluated_epoch > config.epochs:
        least = max(progress.evaluated_epoch, config.epochs)
        while plan.first_call(least) < progress.call:
            least += 1
        within_epoch = progress.call > plan.first_call(progress.evaluated_epoch)
        done = f"{progress.call / plan.calls_per_epoch:.2f}" if within_epoch else progress.evaluated_epoch
        raise ValueError(
            f"{directory} holds a training of {done} epochs, and train.epochs={config.epochs} is fewer; ask for at"
            f" least {least}, or choose another workdir"
        )


@dataclasses.dataclass
class Pace:
    """Calls since the training began, or went on, and the time they took, evaluations left out.

    Attributes:
      calls: how many calls there were.
      targets: how many targets they trained on.
      seconds: how long they took.
    """

    calls: int = 0
    targets: float = 0.0
    seconds: float = 0.0

    def add(self, targets: float, seconds: float) -> None:
        """Counts one call."""
        self.calls += 1
        self.targets += targets
        self.seconds += seconds

    @property
    def targets_per_second(self) -> float:
        """Over all calls."""
        return self.targets / max(self.seconds, 1e-9)

    def seconds_for(self, calls: int) -> float:
        """How long so many calls will take; their lengths are mixed alike in every epoch."""
        return max(calls, 0) * self.seconds / max(self.calls, 1)


__all__ = ["Pace", "Progress", "TrainResult", "check_going_on"]
