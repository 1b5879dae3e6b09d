"""jaxrec: sequential recommendation with generated attention and diffusion, in JAX and Flax.

::

    import jaxrec
    from jaxrec import data

    split = data.leave_one_out(data.simulate(num_users=2000, num_items=500, seed=0))
    run = jaxrec.fit(jaxrec.preset("sasrec"), split, workdir="runs/demo")
    run.evaluate("test")
    run.recommend({"ann": [3, 14, 159]}, k=10)
"""

from jaxrec.batch import SequenceBatch, right_align
from jaxrec.config import Config, EvaluationConfig, config_from_json, config_to_json
from jaxrec.data.source import DataConfig
from jaxrec.devices.mesh import ParallelConfig
from jaxrec.fitting import fit
from jaxrec.lists import TopK, recommend
from jaxrec.lists.bulk import ListRequest, recommend_histories, trained_items
from jaxrec.presets import PRESETS, preset
from jaxrec.protocol import ProtocolCard
from jaxrec.recommender import LossOutput, Recommender
from jaxrec.registry import register
from jaxrec.run import Run, load
from jaxrec.train.optimizer import OptimizerConfig
from jaxrec.train.options import TrainConfig
from jaxrec.version import __version__

__all__ = [
    "PRESETS",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "ListRequest",
    "LossOutput",
    "OptimizerConfig",
    "ParallelConfig",
    "ProtocolCard",
    "Recommender",
    "Run",
    "SequenceBatch",
    "TopK",
    "TrainConfig",
    "__version__",
    "config_from_json",
    "config_to_json",
    "fit",
    "load",
    "preset",
    "recommend",
    "recommend_histories",
    "register",
    "right_align",
    "trained_items",
]
