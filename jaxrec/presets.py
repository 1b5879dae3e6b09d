"""Named configurations, one function each; the docstring says what it reproduces and what to expect."""

import dataclasses
from collections.abc import Callable

from jaxrec.config import Config
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.serialization import nearest
from jaxrec.train.optimizer import OptimizerConfig
from jaxrec.train.options import TrainConfig


def popularity() -> Config:
    """Items by their count in the training part: the floor that every model must clear.

    Command: ``python experiments/train.py --preset popularity --data.source FILE``
    """
    return Config(model=PopularityRecommender())


def sasrec() -> Config:
    """SASRec (Kang, McAuley 2018, arXiv 1808.09781) with the full softmax instead of one negative.

    Command: ``python experiments/train.py --preset sasrec --data FILE``
    """
    return Config(
        model=EncoderRecommender(),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        train=TrainConfig(epochs=300, patience=10),
    )


PRESETS: dict[str, Callable[[], Config]] = {"popularity": popularity, "sasrec": sasrec}


def preset(name: str, **changes) -> Config:
    """The config of a preset; ``changes`` replace its sections, ``preset("sasrec", seed=1)``.

    Raises:
      ValueError: there is no such preset; says which there are.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}{nearest(name, PRESETS)}")
    return dataclasses.replace(PRESETS[name](), **changes)


__all__ = ["PRESETS", "preset"]
