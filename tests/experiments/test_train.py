"""``train.py`` as a person runs it: results, running again, settings of a run, signals, help."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from command_line import EXPERIMENTS, SMALL, assert_one_sentence, environment, experiment, run_apart, run_here
from orbax.checkpoint import CheckpointManager

import jaxrec


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A small run in a folder of its own, with the default workdir."""
    folder = tmp_path_factory.mktemp("train")
    return folder, run_apart("train.py", *SMALL, "--train.epochs", 4, cwd=folder)


@pytest.mark.slow
def test_shows_metrics_beside_popularity_the_best_possible_and_lists(first):
    folder, outcome = first
    assert outcome.code == 0, outcome.err
    for words in (
        "HR",
        "NDCG",
        "MRR",
        "item coverage",
        "vgenatt-demo",
        "popularity",
        "@10",
        "best possible NDCG@10",
        "gets",
    ):
        assert words in outcome.out, outcome.out
    assert "validation NDCG@10" in outcome.out
    assert "\x1b" not in outcome.out  # plain where it is no terminal
    title = jaxrec.load(folder / "runs" / "vgenatt-demo-simulated-seed0").catalogue.metadata.titles[0]
    assert title.split()[0] in outcome.out


@pytest.mark.slow
def test_leaves_a_run_and_says_what_to_type_next(first):
    folder, outcome = first
    run = folder / "runs" / "vgenatt-demo-simulated-seed0"
    names = {path.name for path in run.iterdir()}
    assert {
        "config.json",
        "data.json",
        "weights",
        "checkpoints",
        "metrics.jsonl",
        "example-histories.csv",
    } <= names
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validations = [line for line in lines if line.get("split") == "validation"]
    assert {"active_units/0", "latent_nats/1"} <= validations[-1].keys()
    assert 0 <= validations[-1]["active_units/0"] <= 32
    assert validations[-1]["latent_nats/1"] > 0
    card = json.loads((run / "evaluations" / "test-seen-excluded.json").read_text())["protocol"]
    assert card["part"] == "test"
    assert card["exclude_seen"] is True
    for line in outcome.out.splitlines():
        if line.startswith("  python ") and "recommend.py" in line:
            words = [sys.executable, *line.split()[1:]]
            assert subprocess.run(words, cwd=folder, env=environment(), capture_output=True).returncode == 0
            assert (folder / "recommendations.csv").exists()
            break
    else:
        pytest.fail(f"no command to type next in {outcome.out}")


@pytest.mark.slow
def test_running_again_shows_the_same_results_without_training(first, capsys):
    folder, outcome = first
    workdir = folder / "runs" / "vgenatt-demo-simulated-seed0"
    again = run_here("train.py", "--workdir", workdir, capsys=capsys)  # its settings are taken from the run
    assert again.code == 0, again.err
    assert "complete already" in again.out
    assert "validation NDCG@10" not in again.out
    figures = [line for line in outcome.out.splitlines() if line.startswith(("HR ", "NDCG ", "MRR "))]
    repeated = [line for line in again.out.splitlines() if line.startswith(("HR ", "NDCG ", "MRR "))]
    assert [line.split() for line in figures] == [line.split() for line in repeated]
    record = json.loads((workdir / "training.json").read_text())
    assert record["preset"] == "vgenatt-demo"
    assert record["command"] == shlex.join(["python", "experiments/train.py", *SMALL, "--train.epochs", "4"])


@pytest.mark.slow
def test_more_epochs_go_on(first, capsys):
    folder, _ = first
    workdir = folder / "runs" / "vgenatt-demo-simulated-seed0"
    more = run_here("train.py", "--workdir", workdir, "--train.epochs", 6, capsys=capsys)
    assert more.code == 0, more.err
    assert "going on from step" in more.out
    record = json.loads((workdir / "training.json").read_text())
    assert record["command"].endswith("--train.epochs 6")
    assert record["command"].count("--train.epochs") == 1
    assert any(line.split()[:2] == ["vgenatt-demo", "vgenatt-demo"] for line in more.out.splitlines())


@pytest.mark.slow
def test_fewer_epochs_than_done_are_refused(first, capsys):
    """Weights of more epochs would be recorded as those of fewer."""
    folder, _ = first
    workdir = folder / "runs" / "vgenatt-demo-simulated-seed0"
    refused = run_here("train.py", "--workdir", workdir, "--train.epochs", 2, capsys=capsys)
    assert_one_sentence(refused, "train.epochs=2 is fewer", "choose another workdir")
    assert json.loads((workdir / "config.json").read_text())["train"]["epochs"] > 2


@pytest.mark.slow
def test_a_full_disk_is_told_in_one_sentence(first, capsys, monkeypatch):
    folder, _ = first
    workdir = folder / "runs" / "vgenatt-demo-simulated-seed0"

    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(CheckpointManager, "save", full)
    refused = run_here("train.py", "--workdir", workdir, "--train.epochs", 7, capsys=capsys)
    assert_one_sentence(
        refused,
        f"cannot write to {workdir}",
        "No space left on device",
        "free space or choose another workdir",
    )


@pytest.mark.slow
def test_another_model_in_the_same_workdir_is_refused(first, capsys):
    folder, _ = first
    workdir = folder / "runs" / "vgenatt-demo-simulated-seed0"
    refused = run_here("train.py", "--workdir", workdir, "--model.width", 16, capsys=capsys)
    assert_one_sentence(refused, str(workdir), "model.width: 8", "choose another workdir")


def test_popularity_needs_no_training(tmp_path, capsys):
    outcome = run_here(
        "train.py", "--preset", "popularity", *SMALL[:4], "--workdir", tmp_path / "run", capsys=capsys
    )
    assert outcome.code == 0, outcome.err
    headings = [line.split() for line in outcome.out.splitlines() if "@20" in line]
    assert headings == [["metric", "@5", "@10", "@20"]]  # one model, not popularity beside itself


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path):
    arguments = [*SMALL, "--train.epochs", "100000", "--train.patience", "100000", "--workdir", "run"]
    command = [sys.executable, str(EXPERIMENTS / "train.py"), *arguments]
    for attempt, (number, code) in enumerate([(signal.SIGTERM, 143), (signal.SIGINT, 130)]):
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            seen = []
            deadline = time.monotonic() + 120
            for line in process.stdout:
                seen.append(line)
                if "validation NDCG@10" in line or time.monotonic() > deadline:
                    break
            os.kill(process.pid, number)
            out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        assert "Traceback" not in err
        assert "stopped and saved; to go on: python" in out
        record = json.loads((tmp_path / "run" / "training.json").read_text())
        assert (record["preset"], "--train.epochs 100000" in record["command"]) == ("vgenatt-demo", True)
        assert any("going on from step" in line for line in seen) == (attempt == 1)


def test_help_is_short_and_help_all_is_whole(tmp_path):
    short = run_apart("train.py", "--help", cwd=tmp_path)
    assert short.code == 0
    assert len(short.out.splitlines()) < 130
    for words in ("--data", "--preset", "--workdir", "--train.epochs", "--parallel.mode", "simulated"):
        assert words in short.out
    assert "--optimizer.b2" not in short.out
    top = " ".join(short.out.split("╭")[0].split())
    assert "--help-all shows every flag" in top
    assert "The defaults are those of vgenatt-demo; --preset NAME --help shows those of another" in top
    whole = run_apart("train.py", "--help-all", cwd=tmp_path)
    assert whole.code == 0
    assert "--optimizer.b2" in whole.out
    for hidden in ("num-items", "--model.attention.num-heads", "parent", "{fixed}"):
        assert hidden not in whole.out
    boxed = [line for line in short.out.splitlines() if line.startswith(("│", "╭", "╰"))]
    assert max(map(len, boxed)) <= 100


def test_a_misspelt_flag_is_named(tmp_path):
    outcome = run_apart("train.py", "--train.epoch", "3", cwd=tmp_path)
    assert outcome.code == 2
    assert "--train.epoch" in outcome.err + outcome.out
    assert "--train.epochs" in outcome.err + outcome.out
    assert "Traceback" not in outcome.err


def test_flags_given_later_replace_the_former_ones():
    merged = experiment("training_record").merged_command
    former = "python experiments/train.py --preset sasrec --train.epochs 6 --parallel.no-fast --data x.csv"
    command = "python experiments/train.py --train.epochs 9 --seed=3 --parallel.fast"
    expected = (
        "python experiments/train.py --preset sasrec --train.epochs 9 --parallel.fast --data x.csv --seed=3"
    )
    assert merged(former, command) == expected
    assert merged(former, "python experiments/train.py") == former


def test_the_recorded_command_has_nothing_of_this_machine(tmp_path):
    shown = experiment("training_record").train_command
    log = tmp_path / "events.csv"
    log.write_text("")
    argv = ["--preset", "sasrec", "--data", str(log), "--workdir", str(tmp_path), "--train.epochs", "3"]
    expected = "python experiments/train.py --preset sasrec --data events.csv --train.epochs 3"
    assert shown(argv) == expected
    assert shown(["--workdir=here", *argv]) == expected
    assert shown(["--data=/home/ann/x.csv", "--config", "../b/c.json"]) == (
        "python experiments/train.py --data=x.csv --config c.json"
    )
    inside = ["--data", "data/x.csv", "--config", "studies/a.json,/tmp/b.json"]
    assert shown(inside) == "python experiments/train.py --data data/x.csv --config studies/a.json,b.json"
