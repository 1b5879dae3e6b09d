"""Configs to JSON and back; what does not fit is told in one sentence."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrec import PRESETS, Config, config_from_json, config_to_json, preset
from jaxrec.config import EvaluationConfig, differences, read_config
from jaxrec.devices.mesh import ParallelConfig
from jaxrec.loss_names import NAMED_LOSSES
from jaxrec.losses import LOSSES, GeneralizedBinaryLoss
from jaxrec.models.encoder import EncoderRecommender, Penalty
from jaxrec.serialization import to_json
from jaxrec.train.optimizer import OptimizerConfig
from jaxrec.train.options import TrainConfig


def through_json(config: Config) -> Config:
    return config_from_json(json.loads(json.dumps(config_to_json(config))))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_survives(name):
    config = preset(name)
    assert through_json(config) == config
    assert hash(through_json(config)) == hash(config)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_says_what_it_is_and_how_to_run_it(name):
    assert "Command: ``python experiments/train.py" in PRESETS[name].__doc__


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_survives(name):
    config = Config(model=EncoderRecommender(loss_function=LOSSES[name]()))
    assert through_json(config) == config


@pytest.mark.parametrize("name", sorted(NAMED_LOSSES))
def test_a_preset_takes_a_loss_by_its_name(name):
    assert preset("stosa", {"model.loss_function": name}).model.loss_function == NAMED_LOSSES[name]()


def test_a_named_loss_has_settings_of_its_own():
    settings = {"model.loss_function": "gbce", "model.loss_function.t": 0.5}
    assert preset("sasrec", settings).model.loss_function == GeneralizedBinaryLoss(t=0.5)


def test_an_unknown_loss_is_told():
    with pytest.raises(
        ValueError, match=r"no loss 'bprr'; did you mean 'bpr'\? The losses are softmax, .*bpr"
    ):
        preset("sasrec", {"model.loss_function": "bprr"})


@pytest.mark.parametrize("cutoffs", [(), (0, 5), (10, 5), (5, 5, 10)])
def test_cutoffs_are_ascending_and_positive(cutoffs):
    with pytest.raises(ValueError, match="cutoffs must be whole numbers above 0, ascending"):
        EvaluationConfig(cutoffs=cutoffs, select_by="mrr")


def test_the_selecting_metric_is_one_that_is_measured():
    settings = {"evaluation.cutoffs": [1, 50], "evaluation.select_by": "hr@50"}
    assert through_json(preset("sasrec", settings)).evaluation.cutoffs == (1, 50)
    with pytest.raises(ValueError, match=r"select_by is 'ndcg@10', .*\(1, 50\) is hr@1, hr@50, ndcg@1"):
        EvaluationConfig(cutoffs=(1, 50))


def test_a_config_from_before_there_were_cutoffs_has_the_usual_ones():
    data = config_to_json(Config())
    del data["evaluation"]["cutoffs"], data["evaluation"]["select_by"]
    assert config_from_json(data).evaluation == EvaluationConfig(True, None, (5, 10, 20), "ndcg@10")


@settings(max_examples=30)
@given(
    st.integers(0, 2**31 - 1),
    st.floats(1e-8, 10.0, allow_nan=False),
    st.lists(
        st.builds(Penalty, st.text(max_size=5), st.floats(0, 2), st.integers(0, 9)),
        max_size=3,
        unique_by=lambda penalty: penalty.name,
    ),
    st.sampled_from(["jit", "pmap"]),
    st.booleans(),
)
def test_values_survive(seed, rate, penalties, mode, flag):
    config = Config(
        model=EncoderRecommender(penalties=tuple(penalties), norm_first=flag),
        train=TrainConfig(length_buckets=flag),
        optimizer=OptimizerConfig(learning_rate=rate),
        parallel=ParallelConfig(mode=mode),
        evaluation=EvaluationConfig(exclude_seen=flag),
        seed=seed,
    )
    assert through_json(config) == config


def test_whole_numbers_stand_for_floats_and_nothing_else_is_converted():
    data = config_to_json(Config())
    data["optimizer"]["learning_rate"] = 1
    assert config_from_json(data).optimizer.learning_rate == 1.0
    data["train"]["epochs"] = 2.5
    with pytest.raises(ValueError, match=r"config\.train\.epochs must be of type int, got 2\.5"):
        config_from_json(data)


def test_missing_keys_take_their_defaults():
    data = config_to_json(preset("sasrec"))
    del data["train"]["patience"], data["evaluation"]
    config = config_from_json(data)
    assert config.train.patience == TrainConfig().patience
    assert config.evaluation == EvaluationConfig()


def change(data: dict, path: str, value) -> dict:
    *parents, last = path.split(".")
    place = data
    for name in parents:
        place = place[name]
    place[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("train.epoch", 3, r"config\.train\.epoch is not a key of TrainConfig; did you mean 'epochs'"),
        ("modle", {}, r"config\.modle is not a key of Config; did you mean 'model'"),
        ("model.class", "EncoderRecommendr", r"config\.model\.class is .*did you mean 'EncoderRecommender'"),
        ("model", 3, r"config\.model must be an object"),
        ("model.num_items", True, r"config\.model\.num_items must be of type int, got True"),
        ("model.activation", "tanh", r"config\.model\.activation must be one of 'relu'.*got 'tanh'"),
        (
            "model.loss_function",
            {"class": "DotProduct"},
            r"loss_function must be of type Loss, got a DotProduct",
        ),
        (
            "model.attention",
            {"class": "SoftmaxLoss"},
            r"config\.model\.attention must be of type Module, got a SoftmaxLoss",
        ),
        ("train.epochs", {}, r"config\.train\.epochs must be of type int, got {}"),
        (
            "model",
            {"class": "TrainConfig"},
            r"config\.model must be of type Recommender, got a TrainConfig, which lacks .*query, items",
        ),
        ("model.penalties", {"kl": 1.0}, r"config\.model\.penalties must be a list"),
        (
            "model.penalties",
            [{"class": "Penalty", "name": "kl"}],
            r"penalties\[0\] lacks the key 'coefficient'",
        ),
        ("model.width", 7, "width 7 is not divisible by num_heads 2"),
        ("train.epochs", 0, r"train\.epochs must be at least 1"),
        ("optimizer.learning_rate", 0, "learning_rate must be positive"),
        ("parallel.devices", -1, "must not be negative"),
        ("evaluation.batch_size", 0, "must be at least 1"),
        ("data.fractions", [0.5, 0.2, 0.2], "three positive shares that add up to 1"),
        (
            "data.test_time",
            "2024-05-31",
            "data.test_time is '2024-05-31' and has no effect on the split leave-one-out",
        ),
        ("seed", 2**31, "seed must lie between"),
    ],
)
def test_what_does_not_fit_is_told(path, value, words):
    with pytest.raises(ValueError, match=words):
        config_from_json(change(config_to_json(preset("sasrec")), path, value))


def test_a_file_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{'train': 3}")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        read_config(path)


def test_only_plain_values_go_into_json():
    with pytest.raises(ValueError, match="config: a config holds numbers, strings, tuples and dataclasses"):
        to_json({"train": object()}, {})


def test_differences_name_the_place():
    first, second = config_to_json(preset("sasrec")), config_to_json(preset("sasrec", seed=1))
    second["model"]["width"] = 64
    assert differences(first, first) == []
    assert differences(first, second) == ["model.width: 128 there, 64 here", "seed: 0 there, 1 here"]


def test_an_unknown_preset_is_told():
    with pytest.raises(ValueError, match="there is no preset 'sasrek'; did you mean 'sasrec'"):
        preset("sasrek")


def test_single_settings_of_a_preset():
    config = preset("sasrec", {"train.epochs": 3, "model.attention.fused": True}, seed=7)
    assert (config.train.epochs, config.train.evaluate_every, config.seed) == (3, 2, 7)
    assert config.model.attention.fused
    assert config.optimizer == preset("sasrec").optimizer
    with pytest.raises(ValueError, match=r"sasrec\.train\.epoch: there is no 'epoch'; did you mean"):
        preset("sasrec", {"train.epoch": 3})
    with pytest.raises(ValueError, match=r'no section \'epochs\'.*preset\("sasrec", \{"train\.epochs"'):
        preset("sasrec", epochs=3)
