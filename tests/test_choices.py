"""Words that settings take are checked where a config is built."""

import pytest

from jaxrec.devices.mesh import ParallelConfig
from jaxrec.models.diffurec import DiffuRecRecommender
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.train.optimizer import OptimizerConfig
from jaxrec.train.options import TrainConfig


@pytest.mark.parametrize(
    ("build", "field", "value"),
    [
        (OptimizerConfig, "name", "lion"),
        (OptimizerConfig, "decay", "exponential"),
        (TrainConfig, "batch_source", "Device"),
        (ParallelConfig, "mode", "pjit"),
        (EncoderRecommender, "activation", "tanh"),
        (EncoderRecommender, "dtype", "float64"),
        (DiffuRecRecommender, "sampler_kind", "ode"),
    ],
)
def test_an_unknown_word_is_refused(build, field, value):
    with pytest.raises(ValueError, match=rf"{field} is '{value}', but must be '\w+'( or '\w+')+"):
        build(**{field: value})
