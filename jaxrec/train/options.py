"""How long and in what portions a model is trained."""

import dataclasses
from typing import Literal

from jaxrec.choices import check_choices


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and in what portions a model is trained.

    A *call* is one run of the compiled training program: ``steps_per_call`` optimizer steps on batches of one length,
    for which the host dispatches to the devices once. Metrics, checkpoints and stopping come between calls.

    Attributes:
      epochs: passes over the training windows, at most; early stopping usually ends sooner.
      batch_targets: positions in one optimizer step's batch, over all devices, padding included: batch_targets / L
        windows of L items. Models that train one target a window (diffurec, diffurecsys per prefix) take so many
        windows. Rounded down to a multiple of 8 windows and of the devices, at least one.
      steps_per_call: optimizer steps in one call, that is, in one run of the compiled program; fewer on data that
        give only a few batches an epoch.
      accumulate: the most parts into which each device splits its share of a batch, to compute their gradients one
        after the other and add them up: the same step, but for rounding, with fewer activations in memory (and one
        more gradient). None chooses: 1, except on a CPU for models that train one target a window, or with long
        windows over few items, where it takes parts that fit the caches.
      batch_source: where batches are made: by the grain pipeline on the host, on the device, which then keeps the
        whole log, or auto: on the device where it is an accelerator and the log fits, else by grain. The batches are
        the same.
      length_buckets: whether batches are padded to the length of their own histories (powers of 2, mostly) and not
        all to model.max_length.
      evaluate_every: epochs from one evaluation on the validation part to the next.
      patience: evaluations without a better evaluation.select_by after which training stops.
      checkpoint_minutes: minutes from one checkpoint to the next, besides the one at each evaluation.
      keep_checkpoints: how many of the latest checkpoints stay on disk; the best one stays besides.
      random_bits: jax's generator behind the random keys of training. It hardly matters for speed: dropout, noise and
        negatives hash a key of either kind; only the candidates that the sampled softmax shares in a batch are drawn by
        the generator itself.
    """

    epochs: int = 200
    batch_targets: int = 4096
    steps_per_call: int = 4
    accumulate: int | None = None
    batch_source: Literal["auto", "grain", "device"] = "auto"
    length_buckets: bool = True
    evaluate_every: int = 1
    patience: int = 10
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    random_bits: Literal["threefry2x32", "rbg"] = "threefry2x32"

    def __post_init__(self):
        check_choices(self)
        positive = (
            "epochs",
            "batch_targets",
            "steps_per_call",
            "accumulate",
            "evaluate_every",
            "patience",
            "keep_checkpoints",
        )
        for name in positive:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"train.{name} must be at least 1, got {value}")


__all__ = ["TrainConfig"]
