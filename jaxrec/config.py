"""The configuration of a run: frozen dataclasses, read from and written to JSON."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxrec import losses
from jaxrec.data.source import DataConfig
from jaxrec.devices.mesh import ParallelConfig
from jaxrec.diffusion import GaussianProcess, Noise, Sampler
from jaxrec.diffusion.schedule import (
    CosineSchedule,
    LinearSchedule,
    PiecewiseLinearSchedule,
    SquareRootSchedule,
    TruncatedCosineSchedule,
    TruncatedLinearSchedule,
)
from jaxrec.metrics import CUTOFFS, SELECTION_METRIC, accuracy_names
from jaxrec.models.denoising import Objective
from jaxrec.models.diffurec import DiffuRecRecommender
from jaxrec.models.diffurecsys import DiffuRecSysRecommender
from jaxrec.models.encoder import EncoderRecommender, Penalty
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.models.stosa import DistanceLoss, StosaRecommender
from jaxrec.nn.attention import DotProduct
from jaxrec.nn.diffusion_attention import DiffusionAttention
from jaxrec.nn.refinement import Refined
from jaxrec.nn.stochastic import WassersteinScores
from jaxrec.nn.vae_attention import VaeAttention
from jaxrec.recommender import Recommender
from jaxrec.registry import COMPONENTS, register
from jaxrec.serialization import from_json, to_json
from jaxrec.train.optimizer import OptimizerConfig
from jaxrec.train.options import TrainConfig


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How a model is evaluated.

    Attributes:
      exclude_seen: whether items of the user's whole history are left out of the ranking; also in the validation that
        chooses the checkpoint.
      batch_size: users ranked at once, by all devices together; ``None`` takes 256 on CPUs (64 of a model of one target
        a window), and 2,048 for each device of another kind, fewer where the histories are long.
      cutoffs: the K of the metrics, ascending.
      select_by: the metric of the validation part that chooses the checkpoint: hr@K, ndcg@K or mrr@K at one of the
        cutoffs, or mrr.
    """

    exclude_seen: bool = True
    batch_size: int | None = None
    cutoffs: tuple[int, ...] = CUTOFFS
    select_by: str = SELECTION_METRIC

    def __post_init__(self):
        if not self.cutoffs or min(self.cutoffs) < 1 or list(self.cutoffs) != sorted(set(self.cutoffs)):
            raise ValueError(
                f"evaluation.cutoffs must be whole numbers above 0, ascending, each once; got {self.cutoffs}"
            )
        if self.select_by not in (names := accuracy_names(self.cutoffs)):
            raise ValueError(
                f"evaluation.select_by is {self.select_by!r}, and what is measured at evaluation.cutoffs"
                f" {self.cutoffs} is {', '.join(names)}; choose one of these, or add its cutoff"
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"evaluation.batch_size must be at least 1, got {self.batch_size}")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run.

    Attributes:
      model: the recommender, any ``jaxrec.Recommender``; ``num_items`` is filled from the data.
      data: where the log comes from, and how it is filtered and split. ``fit`` puts here what the split was loaded
        from: ``None`` for one that was made in Python.
      train: how long and in what portions the model is trained.
      optimizer: how parameters are updated.
      parallel: how work is spread over devices.
      evaluation: how the model is evaluated, in validation and test.
      seed: decides initial parameters, the order of the data, dropout and noise; 0 to 2**31 - 1.
    """

    model: Recommender = EncoderRecommender()
    data: DataConfig | None = DataConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    parallel: ParallelConfig = ParallelConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must lie between 0 and 2**31 - 1, got {self.seed}")


for _component in (
    Config,
    DataConfig,
    TrainConfig,
    OptimizerConfig,
    ParallelConfig,
    EvaluationConfig,
    EncoderRecommender,
    StosaRecommender,
    DiffuRecRecommender,
    DiffuRecSysRecommender,
    PopularityRecommender,
    Penalty,
    Objective,
    DotProduct,
    Refined,
    WassersteinScores,
    VaeAttention,
    DiffusionAttention,
    GaussianProcess,
    Noise,
    Sampler,
    LinearSchedule,
    TruncatedLinearSchedule,
    PiecewiseLinearSchedule,
    CosineSchedule,
    TruncatedCosineSchedule,
    SquareRootSchedule,
    *losses.LOSSES.values(),
    DistanceLoss,
):
    register(_component)


def config_to_json(config: Config) -> dict[str, Any]:
    """The config as a JSON-able object.

    Raises:
      ValueError: it holds a class that is not registered (see ``jaxrec.register``), or what is not JSON-able.
    """
    return to_json(config, COMPONENTS)


def config_from_json(data: dict[str, Any]) -> Config:
    """The config of a JSON object.

    Raises:
      ValueError: a key or class is unknown or a value is of the wrong type; says which, and what was meant.
    """
    return from_json(data, Config, COMPONENTS)


def checked_json(config: Config) -> dict[str, Any]:
    """The config as a JSON-able object that can be read back.

    Raises:
      ValueError: it cannot be written, or what is written could not be read; says where.
    """
    content = config_to_json(config)
    config_from_json(json.loads(json.dumps(content)))
    return content


def read_config(path: str | Path) -> Config:
    """Reads a config from a JSON file (as in a run's directory)."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    return config_from_json(data)


def differences(first: Any, second: Any, path: str = "") -> list[str]:
    """Where two JSON objects differ: ``"model.width: 64 there, 128 here"``, the first being there."""
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            line
            for key in sorted(first.keys() | second.keys())
            for line in differences(first.get(key), second.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if first == second else [f"{path}: {first!r} there, {second!r} here"]


__all__ = [
    "Config",
    "EvaluationConfig",
    "checked_json",
    "config_from_json",
    "config_to_json",
    "differences",
    "read_config",
]
