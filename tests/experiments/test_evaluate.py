"""``evaluate.py``: the table, the JSON file, parts, seen items, data that has moved."""

import json
import shutil

import jax
import pytest
from command_line import assert_one_sentence, run_apart, run_here

import jaxrec
from jaxrec import data
from jaxrec.data.source import DataConfig, load_split
from jaxrec.models.popularity import PopularityRecommender


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of popularity on a log in a file."""
    folder = tmp_path_factory.mktemp("fitted")
    lines = ["user,item,time"] + [f"{u},{(u * 7 + 3 * t * t) % 23},{t}" for u in range(20) for t in range(9)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    source = DataConfig(source=str(folder / "log.csv"), min_user=1, min_item=1)
    config = jaxrec.preset("popularity", data=source)
    jaxrec.fit(config, load_split(source), folder / "run")
    return folder


def test_the_table_holds_what_the_file_holds(fitted, capsys):
    outcome = run_here("evaluate.py", "--workdir", fitted / "run", capsys=capsys)
    assert outcome.code == 0, outcome.err
    written = json.loads((fitted / "run" / "evaluations" / "test-seen-excluded.json").read_text())
    rows = {line.split()[0]: line.split()[1:] for line in outcome.out.splitlines() if line}
    for name in ("hr", "ndcg", "mrr"):
        assert rows[name.upper()] == [f"{written[f'{name}@{cutoff}']:.4f}" for cutoff in (5, 10, 20)]
    assert "test-seen-excluded.json" in outcome.out
    assert "by group of users" in outcome.out
    assert f"{written['protocol']['items']} items" in outcome.out


def test_parts_and_seen_items_are_kept_apart(fitted, capsys, tmp_path):
    out = tmp_path / "new" / "copy.json"
    outcome = run_here(
        "evaluate.py",
        *("--workdir", fitted / "run", "--split", "validation", "--no-exclude-seen", "--out", out),
        capsys=capsys,
    )
    assert outcome.code == 0, outcome.err
    written = json.loads((fitted / "run" / "evaluations" / "validation-seen-included.json").read_text())
    assert (written["protocol"]["part"], written["protocol"]["exclude_seen"]) == ("validation", False)
    assert json.loads(out.read_text()) == written
    assert "seen ones included" in outcome.out


class DrawnPopularity(PopularityRecommender):
    """Counts, and noise that follows the key."""

    stochastic = True

    def query(self, params, items, key):
        return super().query(params, items, key) * jax.random.uniform(key, minval=0.5)


def test_averages_of_samples_are_kept_apart(fitted, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(
        PopularityRecommender, "drawing", lambda model: DrawnPopularity(model.num_items), raising=False
    )
    run = shutil.copytree(fitted / "run", tmp_path / "run")
    (run / "training.json").write_text('{"preset": "popularity", "command": "train.py"}')
    for samples in (1, 4):
        flags = ("--num-samples", samples, "--record", tmp_path / "results")
        outcome = run_here("evaluate.py", "--workdir", run, *flags, capsys=capsys)
        assert outcome.code == 0, outcome.err
    assert "test-seen-excluded-4-samples.json" in outcome.out
    ending = "test-seen-excluded{}.json"
    for samples, model, name in ((1, "seed 0", ""), (4, "seed 0, 4 samples", "-4-samples")):
        written = json.loads((run / "evaluations" / ending.format(name)).read_text())
        assert written["protocol"]["num_samples"] == samples
        (recorded,) = (tmp_path / "results").glob(f"*-{ending.format(name)}")
        assert json.loads(recorded.read_text())["model"] == f"popularity, {model}"


def test_a_place_for_the_result_is_looked_for_before_the_work(fitted, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "copy.json"
    told = run_here("evaluate.py", "--workdir", fitted / "run", "--out", out, capsys=capsys)
    assert_one_sentence(told, f"cannot write to {out}", "choose another --out")
    assert told.out == ""
    told = run_here("evaluate.py", "--workdir", fitted / "run", "--out", tmp_path, capsys=capsys)
    assert_one_sentence(told, f"cannot write to {tmp_path}: Is a directory")
    assert told.out == ""


def test_a_result_that_cannot_be_kept_is_shown(fitted, capsys, tmp_path):
    run = shutil.copytree(fitted / "run", tmp_path / "run", ignore=shutil.ignore_patterns("evaluations"))
    (run / "evaluations").write_text("in the way")
    told = run_here("evaluate.py", "--workdir", run, capsys=capsys)
    assert told.code == 0
    assert told.err.startswith("warning: the evaluation could not be kept in")
    assert "by group of users" in told.out
    assert "written to" not in told.out


def test_data_may_have_moved(fitted, tmp_path, capsys):
    run = shutil.copytree(fitted / "run", tmp_path / "run")
    shutil.copy(fitted / "log.csv", tmp_path / "moved.csv")
    config = json.loads((run / "config.json").read_text())
    config["data"]["source"] = "gone.csv"
    (run / "config.json").write_text(json.dumps(config))
    refused = run_here("evaluate.py", "--workdir", run, capsys=capsys)
    assert_one_sentence(refused, "gone.csv", f"the run {run} was trained on it", "--data")
    moved = run_here("evaluate.py", "--workdir", run, "--data", tmp_path / "moved.csv", capsys=capsys)
    assert moved.code == 0, moved.err


def test_seen_items_as_in_the_training(fitted, tmp_path, capsys):
    run = shutil.copytree(fitted / "run", tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["evaluation"]["exclude_seen"] = False
    (run / "config.json").write_text(json.dumps(config))
    outcome = run_here("evaluate.py", "--workdir", run, capsys=capsys)
    assert "seen ones included" in outcome.out
    assert (
        "seen ones excluded" in run_here("evaluate.py", "--workdir", run, "--exclude-seen", capsys=capsys).out
    )


def test_in_a_process_of_its_own(fitted, tmp_path):
    outcome = run_apart("evaluate.py", "--workdir", fitted / "run", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""


def test_a_result_is_recorded_for_the_readme(fitted, capsys, tmp_path):
    workdir, results = tmp_path / "run", tmp_path / "results"
    data = ("--data", fitted / "log.csv", "--data.min-user", 1, "--data.min-item", 1)
    refused = run_here("evaluate.py", "--workdir", fitted / "run", "--record", results, capsys=capsys)
    assert_one_sentence(refused, "only runs of train.py can be recorded")
    assert refused.out == ""  # before the work
    trained = run_here("train.py", "--preset", "popularity", *data, "--workdir", workdir, capsys=capsys)
    assert trained.code == 0, trained.err
    outcome = run_here("evaluate.py", "--workdir", workdir, "--record", results, capsys=capsys)
    assert outcome.code == 0, outcome.err
    (file,) = results.iterdir()
    content = json.loads(file.read_text())
    assert content["kind"] == "evaluation"
    assert content["command"].startswith("python experiments/train.py --preset popularity --data log.csv")
    assert str(tmp_path) not in file.read_text()
    assert content["result"]["protocol"]["part"] == "test"
    text = file.read_text()
    flags = ("--config", workdir / "config.json", "--data.min-user", 2, "--workdir", tmp_path / "again")
    trained = run_here("train.py", *flags, capsys=capsys)
    assert trained.code == 0, trained.err
    again = run_here("evaluate.py", "--workdir", tmp_path / "again", "--record", results, capsys=capsys)
    assert again.code == 0, again.err
    assert {path.name.split("-seed0")[0] for path in results.iterdir()} == {
        "results-log-popularity",
        "results-log-run",  # called after the run whose config it is
    }
    recorded = json.loads(text)
    recorded["config"]["evaluation"]["exclude_seen"] = False
    file.write_text(json.dumps(recorded))
    told = run_here("evaluate.py", "--workdir", workdir, "--record", results, capsys=capsys)
    assert_one_sentence(
        told, str(file), "of a run with other settings, popularity by name as well", "--record"
    )
    assert json.loads(file.read_text()) == recorded


@pytest.fixture(scope="module")
def from_python(fitted, tmp_path_factory):
    """Runs fitted on a log that Python read, and files of that log."""
    folder = tmp_path_factory.mktemp("from-python")
    log = data.read_interactions(fitted / "log.csv")
    jaxrec.fit(jaxrec.preset("popularity"), data.leave_one_out(log), folder / "run")
    jaxrec.fit(jaxrec.preset("popularity"), data.temporal(log), folder / "temporal")
    shutil.copy(fitted / "log.csv", folder / "log.csv")
    lines = (folder / "log.csv").read_text().splitlines()
    (folder / "other.csv").write_text("\n".join(lines[:-20]) + "\n")
    return folder


def test_data_given_from_python_must_be_named(from_python, capsys):
    run = from_python / "run"
    words = (f"the run {run} was fitted on data given from Python under the name 'log'", "give --data")
    assert_one_sentence(run_here("evaluate.py", "--workdir", run, capsys=capsys), *words)
    told = run_here("evaluate.py", "--workdir", run, "--data", from_python / "other.csv", capsys=capsys)
    assert_one_sentence(told, "the run was fitted on log", "evaluate on the same split")
    typo = run_here("evaluate.py", "--workdir", run, "--data", from_python / "lgo.csv", capsys=capsys)
    assert_one_sentence(typo, "lgo.csv")
    same = run_here("evaluate.py", "--workdir", run, "--data", from_python / "log.csv", capsys=capsys)
    assert same.code == 0, same.err
    assert (run / "evaluations" / "test-seen-excluded.json").exists()


def test_a_split_that_no_flag_makes_is_told(from_python, capsys):
    flags = ("--workdir", from_python / "temporal", "--data", from_python / "log.csv")
    told = run_here("evaluate.py", *flags, capsys=capsys)
    assert_one_sentence(told, "given from Python", "split as temporal(", "run.evaluate(split=...)")


def test_a_run_from_python_is_gone_on_with_by_naming_its_data(from_python, capsys, tmp_path):
    run = shutil.copytree(from_python / "run", tmp_path / "run")
    told = run_here("train.py", "--workdir", run, capsys=capsys)
    assert_one_sentence(
        told, str(run / "config.json"), "given from Python under the name 'log'", "give --data"
    )
    log = from_python / "log.csv"
    outcome = run_here("train.py", "--workdir", run, "--data", log, capsys=capsys)
    assert outcome.code == 0, outcome.err
    told = run_here("train.py", "--workdir", run, "--data", from_python / "other.csv", capsys=capsys)
    assert_one_sentence(told, "holds a run on other data")
