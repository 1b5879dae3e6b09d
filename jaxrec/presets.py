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


def demo() -> Config:
    """SASRec of a size for the embedded, simulated data: minutes on a laptop.

    4,000 users, 1,000 items: 87 to 89 % of the best possible NDCG@10 after about a minute of training on
    2 CPU cores.

    Command: ``python experiments/train.py``
    """
    return Config(
        model=EncoderRecommender(width=64, dropout_rate=0.1),
        optimizer=OptimizerConfig(learning_rate=2e-3),
        train=TrainConfig(epochs=15, patience=5),
    )


PRESETS: dict[str, Callable[[], Config]] = {"popularity": popularity, "sasrec": sasrec, "demo": demo}


def preset(name: str, **changes) -> Config:
    """The config of a preset; ``changes`` replace its sections, ``preset("sasrec", seed=1)``.

    Raises:
      ValueError: there is no such preset; says which there are.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}{nearest(name, PRESETS)}")
    return dataclasses.replace(PRESETS[name](), **changes)


__all__ = ["PRESETS", "preset"]
