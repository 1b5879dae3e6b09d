"""``--plugin``: scripts that read and make runs with classes of one's own."""

import dataclasses
import json
import sys

import own_classes
import pytest
from command_line import ROOT, assert_one_sentence, experiment, run_apart, run_here

import jaxrec

PLUGIN = ROOT / "tests" / "own_classes.py"
SMALL_DATA = ("--data.simulated-users", "80", "--data.simulated-items", "60")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A file with the settings of a recommender of one's own."""
    config = jaxrec.preset(
        "sasrec", {"train.epochs": 1, "train.evaluate_every": 1, "train.batch_targets": 256}
    )
    path = tmp_path_factory.mktemp("settings") / "bag.json"
    content = jaxrec.config_to_json(dataclasses.replace(config, model=own_classes.BagOfItems()))
    path.write_text(json.dumps(content))
    return path


@pytest.mark.slow
def test_a_class_of_ones_own_is_trained_evaluated_and_asked(settings, tmp_path):
    """Each script in a process of its own, which knows of the class by the flag alone."""
    trained = run_apart(
        "train.py", "--config", settings, *SMALL_DATA, "--workdir", "run", "--plugin", PLUGIN, cwd=tmp_path
    )
    assert trained.code == 0, trained.err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["class"] == "BagOfItems"
    assert (
        "--plugin own_classes.py" in json.loads((tmp_path / "run" / "training.json").read_text())["command"]
    )
    commands = [line.split()[1:] for line in trained.out.splitlines() if line.startswith("  python ")]
    assert len(commands) == 2
    for command in commands:
        assert str(PLUGIN) in command
        script, *arguments = command
        outcome = run_apart(script.rsplit("/", 1)[-1], *arguments, cwd=tmp_path)
        assert outcome.code == 0, outcome.err
    told = run_apart("evaluate.py", "--workdir", "run", cwd=tmp_path)
    assert_one_sentence(told, "config.model.class is 'BagOfItems'", "jaxrec.register", "--plugin")


def test_flags_change_the_settings_of_ones_own_class(settings):
    parse = experiment("arguments").parse_train_arguments
    parsed = parse(["--config", str(settings), "--model.width", "24", "--plugin", str(PLUGIN)])
    assert parsed.config.model == own_classes.BagOfItems(width=24)
    assert parsed.plugin == str(PLUGIN)


def test_models_of_a_comparison_may_hold_them(tmp_path):
    parse = experiment("comparison.settings").parse_compare_arguments
    change = 'mine.model.attention={"class": "DecayingAttention", "rate": 0.5}'
    flags = ["--presets", "mine", "--variant", "mine=sasrec", "--set", change, "--plugin", str(PLUGIN)]
    arguments = parse(flags)
    member = experiment("comparison.members").make_members(arguments)[-1]
    assert member.config.model.attention == own_classes.DecayingAttention(0.5)
    record = experiment("comparison.runs").RunRecord("mine", 0, {}, {}, {})
    command = experiment("compare").run_command(arguments, record)
    assert command.endswith("--plugin own_classes.py")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("gone.py", None, "there is no such file"),
        ("no_such_module", None, "cannot be imported (ModuleNotFoundError"),
        ("broken_plugin.py", "1 / 0", "cannot be imported (ZeroDivisionError"),
        ("console.py", "", "a module named console is loaded already"),
        (
            "taken_plugin.py",
            "import jaxrec\n@jaxrec.register\nclass Plain: ...",
            "taken_plugin.Plain cannot be",
        ),
    ],
)
def test_what_cannot_be_imported_is_told(file, content, words, tmp_path, capsys):
    name = file
    if file.endswith(".py"):
        name = tmp_path / file
        if content is not None:
            name.write_text(content)
    outcome = run_here("evaluate.py", "--workdir", tmp_path, "--plugin", name, capsys=capsys)
    assert_one_sentence(outcome, f"--plugin {name}: ", words)
    assert "broken_plugin" not in sys.modules


def test_several_modules_and_files_are_imported(tmp_path, monkeypatch):
    plugins = experiment("plugins")
    for name in ("first_plugin", "second_plugin"):
        (tmp_path / f"{name}.py").write_text("import own_classes\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    plugins.import_plugins(["--plugin=first_plugin, second_plugin.py", "--seed", "1"])
    assert sys.modules.pop("first_plugin").__file__ == str(tmp_path / "first_plugin.py")
    assert sys.modules.pop("second_plugin").own_classes is own_classes
