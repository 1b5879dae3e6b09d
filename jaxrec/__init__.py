"""jaxrec: sequential recommendation with generated attention and diffusion, in JAX and Flax.

::

    import jaxrec
    from jaxrec import data

    split = data.leave_one_out(data.simulate(num_users=2000, num_items=500, seed=0))
    run = jaxrec.fit(jaxrec.preset("sasrec"), split, workdir="runs/demo")
    run.evaluate("test")
    run.recommend({"ann": [3, 14, 159]}, k=10)
"""

from jaxrec.batch import SequenceBatch
from jaxrec.bulk import recommend_histories
from jaxrec.config import Config, config_from_json, config_to_json
from jaxrec.fitting import fit
from jaxrec.presets import PRESETS, preset
from jaxrec.protocol import ProtocolCard
from jaxrec.recommend import TopK, recommend
from jaxrec.recommender import LossOutput, Recommender
from jaxrec.registry import register
from jaxrec.run import Run, load
from jaxrec.version import __version__

__all__ = [
    "PRESETS",
    "Config",
    "LossOutput",
    "ProtocolCard",
    "Recommender",
    "Run",
    "SequenceBatch",
    "TopK",
    "__version__",
    "config_from_json",
    "config_to_json",
    "fit",
    "load",
    "preset",
    "recommend",
    "recommend_histories",
    "register",
]
