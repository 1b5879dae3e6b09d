"""``compare.py``: which models, runs that go on, figures by hand, tables, plots, the README's table."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest
from command_line import EXPERIMENTS, assert_one_sentence, experiment, run_here

from jaxrec.train.logging import Silent
from jaxrec.train.options import TrainConfig
from jaxrec.train.stopping import stop_signals

DATA = ("--data.simulated-users", "60", "--data.simulated-items", "40")
SIZE = (
    *("--width", "8", "--max-length", "8", "--epochs", "2"),
    *("--set", "all.train.batch_targets=256", "--set", "all.model.num_layers=1"),
)
MODELS = ("--presets", "sasrec,simple", "--variant", "simple=awrsr")
SIMPLE = ("--set", "simple.model.attention.mechanism=simple")
SMALL = (*DATA, *SIZE, *MODELS, *SIMPLE, "--no-cache")


def make_members(*flags):
    """The members of a command line, by name."""
    arguments = experiment("comparison.settings").parse_compare_arguments(list(flags))
    return {member.name: member for member in experiment("comparison.members").make_members(arguments)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compare")


def compare(folder, *flags, capsys):
    places = ("--workdir", folder / "runs", "--out", folder / "results" / "compare-toys")
    return run_here("compare.py", *SMALL, *places, *flags, capsys=capsys)


@pytest.fixture(scope="module")
def content(folder):
    """The JSON file of a comparison that a signal stopped once."""
    module = experiment("compare")

    class StopAtFirstStep(Silent):
        def steps(self, record):
            if stops:
                signal.raise_signal(stops.pop())

    stops = [signal.SIGTERM]
    argv = [*SMALL, "--seeds", "0,1", "--timing-rounds", "1", "--seen-included"]
    argv += ["--also-against", "simple"]
    argv += ["--workdir", str(folder / "runs"), "--out", str(folder / "results" / "compare-toys")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "reporters", lambda console, workdir: [StopAtFirstStep()])
        assert module.main(argv) == 143
        assert not (folder / "results").exists()
        assert module.main(argv) == 0
    return json.loads((folder / "results" / "compare-toys.json").read_text())


@pytest.mark.slow
def test_every_run_has_its_config_card_and_figures(content):
    runs = {(run["name"], run["seed"]): run for run in content["runs"]}
    both = [(name, seed) for name in ("random", "sasrec", "simple") for seed in (0, 1)]
    assert set(runs) == {*both, ("popularity", 0)}
    assert runs["simple", 1]["config"]["model"]["attention"]["mechanism"] == "simple"
    assert runs["simple", 1]["config"]["seed"] == 1
    for run in runs.values():
        assert run["config"]["model"].get("width", 8) in (8, 64)
        for protocol, exclude_seen in (("seen-excluded", True), ("seen-included", False)):
            result = run["results"][protocol]
            assert result["protocol"]["exclude_seen"] is exclude_seen
            assert 0 <= result["ndcg@10"] <= result["hr@10"] <= 1
    assert runs["sasrec", 0]["training_seconds"] > 0
    assert runs["sasrec", 0]["command"].startswith("python experiments/train.py --config ")


@pytest.mark.slow
def test_means_and_groups_are_those_of_the_runs(content):
    part = content["protocols"]["seen-excluded"]
    scores = [
        run["results"]["seen-excluded"]["ndcg@10"] for run in content["runs"] if run["name"] == "simple"
    ]
    model = part["models"]["simple"]
    assert model["mean"]["ndcg@10"] == pytest.approx(np.mean(scores), rel=1e-5)
    assert model["sd"]["ndcg@10"] == pytest.approx(np.std(scores, ddof=1), rel=1e-4)
    for kind in ("history ", "target "):
        groups = [group for name, group in model["groups"].items() if name.startswith(kind)]
        users = sum(group["users"] for group in groups)
        total = sum(group["users"] * group["mean"]["ndcg@10"] for group in groups)
        assert total / users == pytest.approx(model["mean"]["ndcg@10"], rel=1e-4)
    difference = model["mean"]["ndcg@10"] - part["models"]["sasrec"]["mean"]["ndcg@10"]
    assert model["paired"]["ndcg@10"]["difference"] == pytest.approx(difference, abs=1e-6)
    assert "sd" not in part["models"]["popularity"]
    assert "paired" not in part["models"]["sasrec"]


@pytest.mark.slow
def test_the_figures_that_chose_stand_beside_those_of_the_test(content, folder, capsys):
    runs = [run for run in content["runs"] if run["name"] == "simple"]
    lines = (folder / "runs" / "simulated" / "simple-seed0" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    best = max(
        (record for record in records if record["split"] == "validation"), key=lambda one: one["ndcg@10"]
    )
    assert runs[0]["validation"]["ndcg@10"] == pytest.approx(best["ndcg@10"], rel=1e-5)
    assert runs[0]["validation"]["epoch"] == pytest.approx(best["epoch"], rel=1e-5)
    mean = np.mean([run["validation"]["ndcg@10"] for run in runs])
    assert content["validation"]["simple"]["mean"]["ndcg@10"] == pytest.approx(mean, rel=1e-5)
    assert set(content["validation"]) == {"sasrec", "simple"}
    text = (folder / "results" / "compare-toys.md").read_text()
    assert "| model | validation NDCG@10 | epoch |" in text
    assert f"| simple | {mean:.4f} ± " in text


@pytest.mark.slow
def test_further_baselines_have_tables_of_their_own(content, folder):
    assert content["also_against"] == ["simple"]
    models = content["protocols"]["seen-included"]["models"]
    assert "paired_against" not in models["simple"]
    own, other = models["simple"]["paired"]["hr@10"], models["sasrec"]["paired_against"]["simple"]["hr@10"]
    assert (own["wins"], own["losses"]) == (other["losses"], other["wins"])
    table = (folder / "results" / "compare-toys.md").read_text().partition("### Against simple\n")[2]
    rows = [line.split(" | ")[0] for line in table.partition("###")[0].splitlines() if line.startswith("| ")]
    assert rows == ["| model", "| ---", "| random", "| popularity", "| sasrec"]


@pytest.mark.slow
def test_times_are_relative_to_the_baseline(content):
    models = content["timing"]["models"]
    assert set(models) == {"sasrec", "simple"}
    for what in ("step", "epoch", "recommendation"):
        assert models["sasrec"][f"{what}_ratio"] == 1
        own, base = (models[name][f"{what}_seconds"] for name in ("simple", "sasrec"))
        assert models["simple"][f"{what}_ratio"] == pytest.approx(own / base, rel=1e-4)


@pytest.mark.slow
def test_writes_tables_and_plots(content, folder):
    text = (folder / "results" / "compare-toys.md").read_text()
    for words in ("Seen items excluded", "Seen items included", "| popularity |", "item coverage", "history"):
        assert words in text
    for name in ("accuracy-coverage", "history-length", "accuracy-coverage-seen-included"):
        path = folder / "results" / f"compare-toys-{name}.png"
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.name in text


@pytest.mark.slow
def test_finished_runs_are_only_read(content, folder, capsys):
    again = compare(folder, "--seeds", "0", "--timing-rounds", "0", "--baseline", "simple", capsys=capsys)
    assert again.code == 0, again.err
    assert again.out.count("finished before") == 4
    assert "loss" not in again.out
    fresh = json.loads((folder / "results" / "compare-toys.json").read_text())
    assert fresh["baseline"] == "simple"
    assert fresh["timing"] is None
    of_seed = [run for run in content["runs"] if run["seed"] == 0]
    seen = [run["results"]["seen-excluded"] for run in of_seed]
    assert [run["results"]["seen-excluded"] for run in fresh["runs"]] == seen
    assert fresh["runs"][-1]["validation"] == of_seed[-1]["validation"]
    assert "  validation NDCG@10 " in again.out


def test_a_signal_before_the_loop_listens_reaches_it_once():
    with stop_signals() as outer:
        relay = experiment("comparison.runs").StopRelay(outer)
        relay.steps({})
        signal.raise_signal(signal.SIGTERM)
        with stop_signals() as inner:
            relay.steps({})
            assert inner.is_set()
            relay.steps({})  # a second signal would raise KeyboardInterrupt
        assert inner.number == outer.number == signal.SIGTERM


@pytest.mark.slow
def test_a_directory_of_another_model_is_refused(content, folder, capsys):
    changed = compare(
        folder, "--seeds", "0", "--set", "sasrec.model.num_layers=2", "--timing-rounds", "0", capsys=capsys
    )
    assert_one_sentence(changed, "sasrec-seed0", "model.num_layers", "choose another workdir")


@pytest.mark.slow
def test_feeds_the_table_of_the_readme(content, tmp_path):
    (tmp_path / "compare-toys.json").write_text(json.dumps(content))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:results-toys -->\n<!-- /table:results-toys -->\n")
    module = experiment("readme_tables")
    assert module.main(["--readme", str(readme), "--results", str(tmp_path)]) == 0
    text = readme.read_text()
    mean = content["protocols"]["seen-excluded"]["models"]["simple"]["mean"]["ndcg@10"]
    line = next(line for line in text.splitlines() if line.startswith("| simple |"))
    assert f"{mean:.4f} ± " in line
    assert "(compare-toys.md)" in text
    assert module.main(["--readme", str(readme), "--results", str(tmp_path), "--check"]) == 0


def make_record(name, seed, values, **card):
    """A run with three test users."""
    card = {"data": "toys", "fingerprint": "f", "exclude_seen": True, "seed": seed, **card}
    values = np.asarray(values, np.float64)
    groups = {"history 5": {"users": 3, "hr@10": values.mean(), "ndcg@10": values.mean()}}
    result = {"ndcg@10": values.mean(), "groups": groups, "protocol": card}
    record = experiment("comparison.runs").RunRecord
    return record(name, seed, {}, {"seen-excluded": result}, {"seen-excluded": {"ndcg@10": values}})


def test_a_finished_run_without_its_validation_figure_is_read_from_the_course_of_training(tmp_path):
    best_validation = experiment("comparison.runs").best_validation
    train = TrainConfig(epochs=6, evaluate_every=2)
    assert best_validation(tmp_path, train) == {}
    records = [
        {"split": "train", "step": 2, "epoch": 0.5, "loss": 4.0},
        {"split": "validation", "step": 8, "epoch": 2.5, "best": True, "ndcg@10": 0.1},
        {"split": "validation", "step": 16, "epoch": 4.5, "best": True, "ndcg@10": 0.2},
        {"split": "validation", "step": 24, "epoch": 6.5, "best": False, "ndcg@10": 0.15},
        {"split": "validation", "step": 32, "epoch": 8.5, "best": True, "ndcg@10": 0.3},
    ]
    cut = '{"split": "validation", "ep'
    (tmp_path / "metrics.jsonl").write_text("\n".join([*map(json.dumps, records), cut]))
    assert best_validation(tmp_path, train) == {"validation": {"ndcg@10": 0.2, "epoch": 4.5}}
    longer = dataclasses.replace(train, epochs=8)
    assert best_validation(tmp_path, longer) == {"validation": {"ndcg@10": 0.3, "epoch": 8.5}}


def test_users_are_averaged_over_seeds_before_the_test():
    records = [
        make_record("base", 0, [0, 1, 0]),
        make_record("base", 1, [0, 0, 0]),
        make_record("new", 0, [1, 0, 0]),
        make_record("new", 1, [1, 1, 0]),
    ]
    part = experiment("comparison.summary").summarise(records, "seen-excluded", "base")
    test = part["models"]["new"]["paired"]["ndcg@10"]
    assert test["difference"] == pytest.approx(1 / 3)
    assert (test["wins"], test["losses"]) == (1, 0)  # user 2: a half in both
    assert part["models"]["new"]["mean"]["ndcg@10"] == pytest.approx(0.5)
    assert part["models"]["new"]["sd"]["ndcg@10"] == pytest.approx(np.std([1 / 3, 2 / 3], ddof=1))
    assert part["protocol"] == {"data": "toys", "fingerprint": "f", "exclude_seen": True}


BY_VALIDATION = {"chosen_by": "validation ndcg@10"}


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"exclude_seen": False}, "exclude_seen: True there, False here"),
        ({"fingerprint": "g"}, "fingerprint"),
        (
            {"chosen_by": "validation ndcg@10, seen included"},
            "chosen_by: 'validation ndcg@10, seen excluded'",
        ),
    ],
)
def test_different_protocols_never_share_a_column(card, words):
    records = [make_record("base", 0, [0, 1, 0]), make_record("new", 0, [1, 0, 0], **BY_VALIDATION | card)]
    records[0].results["seen-excluded"]["protocol"] |= BY_VALIDATION
    with pytest.raises(ValueError, match="cannot stand in one column") as error:
        experiment("comparison.summary").summarise(records, "seen-excluded", "base")
    assert words in str(error.value)
    assert "new seed 0" in str(error.value)


def test_older_cards_and_those_of_no_choice_stand_beside_others():
    choices = ["nothing: it is not trained", "validation ndcg@10", "validation ndcg@10, seen excluded"]
    cards = {str(number): {"data": "toys", "chosen_by": choice} for number, choice in enumerate(choices)}
    shared = experiment("comparison.summary").check_comparable(cards)
    assert shared == {"data": "toys", "chosen_by": "validation ndcg@10, seen excluded"}


def test_sizes_are_equal_and_own_settings_win(tmp_path):
    file = tmp_path / "variants.json"
    changes = {"model.dropout_rate": 0.1, "model.attention": {"class": "Refined", "mechanism": "simple"}}
    file.write_text(json.dumps({"own": {"preset": "sasrec", "set": changes}, "unused": {"preset": "awrsr"}}))
    flags = (
        "--variants",
        str(file),
        "--presets",
        "sasrec,own,vgenatt",
        "--width",
        "32",
        "--max-length",
        "20",
    )
    members = make_members(
        *flags, "--set", "own.model.width=16", "--set", "vgenatt.model.penalties.0.coefficient=0.5"
    )
    assert list(members) == ["random", "popularity", "sasrec", "own", "vgenatt"]
    sasrec, own = members["sasrec"].config.model, members["own"].config.model
    assert (sasrec.width, sasrec.max_length, own.width, own.max_length) == (32, 20, 16, 20)
    assert own.attention.mechanism == "simple"
    assert own.dropout_rate == 0.1
    assert members["vgenatt"].config.model.penalties[0].coefficient == 0.5


def test_a_variant_starts_from_one_before_it(tmp_path):
    file = tmp_path / "variants.json"
    first = {"preset": "sasrec", "set": {"model.dropout_rate": 0.1, "model.num_layers": 3}}
    second = {"preset": "first", "set": {"model.num_layers": 1}}
    file.write_text(json.dumps({"first": first, "second": second}))
    model = make_members("--variants", str(file), "--presets", "second")["second"].config.model
    assert (model.dropout_rate, model.num_layers) == (0.1, 1)
    other = tmp_path / "others.json"
    file.write_text(json.dumps({"first": first}))
    other.write_text(json.dumps({"second": second}))
    model = make_members("--variants", f"{file},{other}", "--presets", "second")["second"].config.model
    assert (model.dropout_rate, model.num_layers) == (0.1, 1)
    file.write_text(json.dumps({"second": second, "first": first}))
    with pytest.raises(ValueError, match="second starts from 'first', which is no preset"):
        make_members("--variants", str(file), "--presets", "second")


@pytest.mark.parametrize(
    "study", sorted((EXPERIMENTS / "studies").glob("*.json")), ids=lambda path: path.stem
)
def test_the_studies_can_be_compared(study):
    names = list(json.loads(study.read_text()))
    assert list(make_members("--variants", str(study), "--presets", ",".join(names)))[2:] == names


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--presets", "sasrek"), ("sasrek", "did you mean 'sasrec'")),
        (("--presets", "sasrec,sasrec"), ("each once",)),
        (("--seeds", "0,one"), ("--seeds", "'0,one'")),
        (("--seeds", "0,0"), ("twice",)),
        (("--presets", "sasrec", "--baseline", "stosa"), ("--baseline stosa",)),
        (("--presets", "sasrec,awrsr", "--also-against", "awrs"), ("--also-against awrs", "'awrsr'")),
        (("--presets", "sasrec,awrsr", "--also-against", "awrsr,sasrec"), ("sasrec", "already")),
        (("--variant", "awrsr"), ("NAME=PRESET",)),
        (("--variant", "mine=awrs"), ("mine starts from 'awrs'", "'awrsr'")),
        (("--variant", "mine=awrsr"), ("mine", "--presets")),
        (("--variant", "sasrec=awrsr"), ("cannot be called 'sasrec'",)),
        (("--set", "sasrec.model"), ("NAME.field.path=value",)),
        (("--set", "bert.model.width=8"), ("'bert' is not compared",)),
        (("--set", "sasrec.model.widht=8"), ("no 'widht'", "'width'")),
        (("--set", "all.evaluation.select_by=mrr"), ("select_by cannot be set", "ndcg@10")),
        (("--set", "sasrec.model.loss_function=bprr"), ("no loss 'bprr'", "'bpr'")),
        (("--set", "sasrec.model.width.x=8"), ("model.width is 128", "no parts")),
        (("--set", "sasrec.data.min_user=2"), ("all models",)),
        (("--set", "sasrec.evaluation.exclude_seen=false"), ("all models", "--choose-seen-included")),
        (("--set", "sasrec.model.width=wide"), ("settings of sasrec", "model.width", "'wide'")),
        (("--width", "-1"), ("--width", "-1")),
        (("--variants", "none.json"), ("none.json",)),
    ],
)
def test_what_cannot_be_compared_is_named(flags, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(run_here("compare.py", *DATA, *flags, "--no-cache", capsys=capsys), *words)
    assert not list(tmp_path.iterdir()), "before any training"


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "is not JSON"), ("[]", "object"), ('{"a": {"preset": "sasrec", "sett": {}}}', "sett")],
)
def test_a_broken_file_of_variants_is_named(tmp_path, text, words):
    file = tmp_path / "variants.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=words):
        make_members("--variants", str(file), "--presets", "sasrec")


def test_random_lists_favour_no_item():
    recommender = experiment("comparison.baselines").RandomRecommender(num_items=20)
    params = recommender.init(jax.random.key(0))
    items = np.random.default_rng(0).integers(1, 21, (4000, 8)).astype(np.int32)
    scores = np.asarray(recommender.query(params, items, jax.random.key(1)) @ recommender.items(params).T)
    first = np.bincount(scores[:, 1:21].argmax(axis=1), minlength=20) / len(items)
    assert np.all(np.abs(first - 1 / 20) < 0.03)
    longer = np.concatenate([np.zeros((4000, 8), np.int32), items], axis=1)
    again = recommender.query(params, longer, jax.random.key(1))
    np.testing.assert_array_equal(again, recommender.query(params, items, jax.random.key(1)))
