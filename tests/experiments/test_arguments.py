"""Flags to a config: presets, files, runs, aliases, losses; what is out of range."""

import dataclasses
import json

import pytest
from command_line import experiment

from jaxrec import PRESETS, Config, config_to_json, preset
from jaxrec.data.source import DataConfig
from jaxrec.loss_names import NAMED_LOSSES, OLDER_NAMES
from jaxrec.models.encoder import EncoderRecommender, Penalty
from jaxrec.serialization import config_fields
from jaxrec.train.optimizer import OptimizerConfig
from jaxrec.train.options import TrainConfig

arguments = experiment("arguments")


def parse(*argv: str):
    return arguments.parse_train_arguments(list(argv))


def test_no_flag_gives_the_demo_and_data_alone_the_default():
    assert parse().config == preset("vgenatt-demo")
    parsed = parse("--data", "events.csv")
    assert parsed.config.model == preset(arguments.DEFAULT_PRESET).model
    assert parsed.config.data.source == "events.csv"
    assert parsed.workdir == "runs/vgenatt-events-seed0"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_passes_through_the_flags_unchanged(name):
    parsed = parse("--preset", name, "--seed", "3")
    assert parsed.config == preset(name, seed=3)
    assert parsed.workdir == f"runs/{name}-simulated-seed3"


def test_whether_somebody_chose_the_preset(tmp_path):
    assert arguments.takes_default_preset(["--data", "x.csv", "--workdir", str(tmp_path)])
    assert not arguments.takes_default_preset(["--preset", "sasrec"])
    assert not arguments.takes_default_preset(["--config=mine.json"])
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(preset("sasrec"))))
    assert not arguments.takes_default_preset(["--workdir", str(tmp_path)])
    note = experiment("train").default_preset_note("vgenatt")
    assert "vgenatt is the default preset; --preset sasrec" in note


def test_data_has_a_short_and_a_long_flag():
    assert parse("--data", "x.csv").config == parse("--data.source", "x.csv").config
    assert parse("--data=x.csv", "--data.min-user", "2").config.data.min_user == 2


def test_flags_set_the_clock_of_a_temporal_split():
    flags = (
        "--data.split",
        "temporal",
        "--data.fractions",
        "0.7",
        "0.2",
        "0.1",
        "--data.test-time",
        "2024-05-31",
    )
    parsed = parse("--data", "x.csv", *flags).config.data
    assert (parsed.fractions, parsed.test_time) == ((0.7, 0.2, 0.1), "2024-05-31")


def test_flags_change_one_field_each():
    changed = parse(
        "--preset", "sasrec", "--train.epochs", "50", "--parallel.mode", "pmap", "--model.width=256"
    )
    expected = preset("sasrec")
    expected = dataclasses.replace(
        expected,
        model=dataclasses.replace(expected.model, width=256),
        train=dataclasses.replace(expected.train, epochs=50),
        parallel=dataclasses.replace(expected.parallel, mode="pmap"),
    )
    assert changed.config == expected


@pytest.mark.parametrize("name", sorted(NAMED_LOSSES))
def test_one_flag_chooses_the_loss(name):
    assert parse("--preset", "stosa", "--loss", name).config.model.loss_function == NAMED_LOSSES[name]()


@pytest.mark.parametrize(("older", "name"), OLDER_NAMES.items())
def test_older_names_of_losses_are_understood(older, name):
    assert parse("--loss", older).config == parse("--loss", name).config


def test_help_says_what_each_loss_is(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    shown = capsys.readouterr().out
    lines = [line.strip("│| ") for line in shown.splitlines()]
    for name in NAMED_LOSSES:
        assert any(line.startswith(f"{name}: ") for line in lines), name
    assert not [older for older in OLDER_NAMES if f"{older}," in shown or f"{older}}}" in shown]


def test_the_chosen_loss_has_flags_of_its_own():
    parsed = parse("--loss", "sampled_softmax", "--model.loss-function.num-negatives", "7")
    assert parsed.config.model.loss_function.num_negatives == 7


def test_a_config_file_is_the_start(tmp_path):
    config = preset("sasrec", train=TrainConfig(epochs=7), seed=5)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config_to_json(config)))
    assert parse("--config", str(path)).config == config
    assert parse("--config", str(path)).workdir == "runs/mine-simulated-seed5"
    with pytest.raises(ValueError, match="exclude each other"):
        parse("--config", str(path), "--preset", "sasrec")


def test_a_run_keeps_its_settings(tmp_path):
    config = preset("sasrec", model=EncoderRecommender(width=24), seed=5)
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)))
    assert parse("--workdir", str(tmp_path)).config == config
    assert parse("--workdir", str(tmp_path), "--preset", "vgenatt-demo").config == preset("vgenatt-demo")


def test_penalties_can_be_set():
    config = preset(
        "vgenatt-demo", model=EncoderRecommender(penalties=(Penalty("kl", 0.5, 10), Penalty("other", 1.0)))
    )
    default = arguments.TrainArguments(config=config)
    parsed = arguments.tyro.cli(
        arguments.TrainArguments,
        args=["--model.penalties.0.coefficient", "0.25"],
        default=default,
        registry=arguments.config_registry(),
    )
    assert parsed.config.model.penalties == (Penalty("kl", 0.25, 10), Penalty("other", 1.0))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--preset", "sasrek"], "did you mean 'sasrec'"),
        (["--loss", "softmix"], "did you mean 'softmax'. The losses are softmax, .* bpr"),
        (["--loss", "distance"], "EncoderRecommender ranks by inner product.*STOSA only"),
        (["--preset", "popularity", "--loss", "softmax"], "no choice of loss"),
    ],
)
def test_unknown_names_are_told(argv, words):
    with pytest.raises(ValueError, match=words):
        parse(*argv)


@pytest.mark.parametrize("argv", [["--train.epochs", "0"], ["--model.num-heads", "3"]])
def test_values_out_of_range_are_told(argv, capsys):
    with pytest.raises(SystemExit) as end:
        parse(*argv)
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert argv[0].split(".")[-1].strip("-").replace("-", "_") in told
    assert argv[1] in told


def test_a_seed_out_of_range_is_told():
    with pytest.raises(ValueError, match="seed must lie between"):
        parse("--seed", "-1")


def test_help_texts_are_those_of_the_docstrings():
    class Documented:
        """Something.

        Attributes:
          first: is ``short``.
          second: goes on: over
            two lines.

        After it.
        """

    assert arguments.attribute_docs(Documented) == {
        "first": "is short.",
        "second": "goes on: over two lines.",
    }


@pytest.mark.parametrize("cls", [Config, TrainConfig, OptimizerConfig, DataConfig, EncoderRecommender])
def test_every_field_has_a_help_text(cls):
    assert set(arguments.attribute_docs(cls)) == {field.name for field in dataclasses.fields(cls)}


def parts(value):
    """A config's dataclasses, itself among them."""
    if dataclasses.is_dataclass(value):
        yield value
        for field in config_fields(type(value)):
            yield from parts(getattr(value, field.name))


@pytest.mark.parametrize(
    "value", [*(preset(name) for name in sorted(PRESETS)), *(cls() for cls in NAMED_LOSSES.values())]
)
def test_every_part_has_help_texts_also_for_inherited_fields(value):
    for part in parts(value):
        names = {field.name for field in config_fields(type(part))}
        assert names <= arguments.attribute_docs(type(part)).keys(), type(part)


def test_the_help_shows_computed_defaults(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: runs/PRESET-DATA-seedN)" in told
    assert "(default: as in the preset)" in told
