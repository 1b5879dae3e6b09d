"""How long and in what portions a model is trained."""

import dataclasses
from typing import Literal

from jaxrec.choices import check_choices


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and in what portions a model is trained.

    Attributes:
      epochs: at most; early stopping usually ends sooner.
      batch_targets: targets of one optimizer step, padding included.
      steps_per_call: optimizer steps of one dispatch to the device.
      accumulate: parts, at most, into which a device splits its rows of a batch to make their gradients one after the
        other: the same step, but for rounding, with fewer activations in memory (and one more gradient). ``None``: 1,
        except on a CPU for models that train one target a window, or on long windows of few items: parts that its
        caches hold.
      batch_source: where batches are made: by the ``grain`` pipeline on the host, on the ``device`` that keeps the
        whole log, or ``auto``: on an accelerator where the log fits, else by Grain. The batches are the same.
      length_buckets: whether short histories go to short batches.
      evaluate_every: epochs between evaluations on the validation part.
      patience: evaluations without a better value of evaluation.select_by before stopping.
      checkpoint_minutes: minutes between checkpoints, beside the one at each evaluation.
      keep_checkpoints: latest checkpoints that stay; the best one stays besides.
      random_bits: generator of the keys of training. Dropout masks, noise and negatives are a hash of a key, cheap
        with either; what comes from the generator itself are the shared candidates of the sampled softmax.
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
