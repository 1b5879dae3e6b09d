"""Wrong input, end to end: each ends in one sentence with what was found, where, and what to do."""

import errno
import gzip
import json
import shutil

import numpy as np
import pytest
from command_line import SMALL, assert_one_sentence, run_apart, run_here

import jaxrec
from jaxrec import data
from jaxrec.config import Config
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.train.options import TrainConfig

ROWS = [(user, item, 10 * item) for user in range(6) for item in range(8)]


def write_log(path, rows=ROWS, header="user,item,time"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.fixture
def train(tmp_path, capsys):
    """``train("--data", ...)``: popularity, so that good input takes no time, in a workdir of its own."""

    def run(*arguments):
        return run_here(
            "train.py", "--preset", "popularity", "--workdir", tmp_path / "run", *arguments, capsys=capsys
        )

    return run


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of popularity on a small log with text ids."""
    folder = tmp_path_factory.mktemp("fitted")
    rows = [(f"u{user}", f"i{item}", item) for user, item, _ in ROWS]
    log = data.read_interactions(write_log(folder / "log.csv", rows))
    jaxrec.fit(jaxrec.preset("popularity"), data.leave_one_out(log), folder / "run")
    return folder / "run"


def recommend(fitted, tmp_path, capsys, *arguments):
    histories = tmp_path / "histories.csv"
    if not histories.exists():
        write_log(histories, [("ann", "i1", 1), ("ann", "i2", 2), ("bob", "nothing", 1)])
    out = tmp_path / "recs.csv"
    return run_here(
        "recommend.py", "--workdir", fitted, "--histories", histories, "--out", out, *arguments, capsys=capsys
    )


def test_good_input_is_taken(train, tmp_path):
    assert train("--data", write_log(tmp_path / "log.csv")).code == 0


def test_missing_file(train, tmp_path):
    path = tmp_path / "nowhere.csv"
    assert_one_sentence(train("--data", path), str(path))
    assert_one_sentence(train("--data", "movielens-1n"), "movielens-1n", "did you mean movielens-1m")


def test_missing_file_in_a_process_of_its_own(tmp_path):
    assert_one_sentence(run_apart("train.py", "--data", "nowhere.csv", cwd=tmp_path), "nowhere.csv")


def test_debug_shows_the_traceback(tmp_path):
    outcome = run_apart("train.py", "--data", "nowhere.csv", "--debug", cwd=tmp_path)
    assert outcome.code == 1
    assert "Traceback" in outcome.err


@pytest.mark.parametrize("content", ["", "user,item,time\n"])
def test_empty_file(train, tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_text(content)
    assert_one_sentence(train("--data", path), str(path))


def test_wrong_column(train, tmp_path):
    path = write_log(tmp_path / "log.csv")
    assert_one_sentence(
        train("--data", path, "--data.user", "customer"), str(path), "customer", "user, item, time"
    )


@pytest.mark.parametrize("role", ["user", "item", "time"])
def test_a_column_that_would_not_be_read(train, role, tmp_path):
    path = tmp_path / "log.seq.txt"
    path.write_text("ann\ta b c d\n")
    assert_one_sentence(train("--data", path, f"--data.{role}", "x"), f"data.{role}", str(path), "sequences")


def test_columns_that_cannot_be_guessed(train, tmp_path):
    path = write_log(tmp_path / "log.csv", header="a,b,c")
    assert_one_sentence(train("--data", path), str(path), "a, b, c")


def test_ragged_row(train, tmp_path):
    path = write_log(tmp_path / "log.csv", [*ROWS, (1, 2, 3, 4)])
    assert_one_sentence(train("--data", path), str(path), f"line {len(ROWS) + 2}")


def test_time_that_is_no_time(train, tmp_path):
    path = write_log(tmp_path / "log.csv", [*ROWS, (1, 99, "soon")])
    assert_one_sentence(train("--data", path), str(path), f"line {len(ROWS) + 2}", "soon", "time")


def test_bytes_that_are_no_text(train, tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"user,item,time\n" + b"1,caf\xe9,3\n" * 9)
    assert_one_sentence(train("--data", path), str(path), "UTF-8")


def test_compressed_file_cut_short(train, tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(b"user,item,time\n" + b"1,2,3\n" * 1000)[:-20])
    assert_one_sentence(train("--data", path), str(path))


def test_users_with_one_event_only(train, tmp_path):
    path = write_log(tmp_path / "log.csv", [(user, 1, 1) for user in range(9)])
    told = train("--data", path, "--data.min-user", 1, "--data.min-item", 1)
    assert_one_sentence(told, "log", "3 interactions", "longer histories")


def test_one_user_with_one_event_is_no_error(train, tmp_path):
    path = write_log(tmp_path / "log.csv", [*ROWS, (99, 1, 1)])
    outcome = train("--data", path, "--data.min-user", 1, "--data.min-item", 1)
    assert outcome.code == 0, outcome.err
    assert "7 users" in outcome.out


def test_all_users_filtered_away(train, tmp_path):
    path = write_log(tmp_path / "log.csv")
    assert_one_sentence(train("--data", path, "--data.min-user", 50), "min_user=50", "lower min_user")


def test_duplicate_rows_are_told(train, tmp_path):
    path = write_log(tmp_path / "log.csv", [*ROWS, *ROWS[:3]])
    outcome = train("--data", path)
    assert outcome.code == 0, outcome.err
    assert outcome.err.startswith("warning: log: 3 of 51 rows repeat another row")
    assert "site-packages" not in outcome.err


def test_unknown_items(fitted, tmp_path, capsys):
    warned = recommend(fitted, tmp_path, capsys)
    assert warned.code == 0, warned.err
    assert "'nothing'" in warned.err
    assert len(warned.err.splitlines()) == 1
    assert recommend(fitted, tmp_path, capsys, "--on-unknown", "ignore").err == ""
    (tmp_path / "recs.csv").unlink()
    assert_one_sentence(
        recommend(fitted, tmp_path, capsys, "--on-unknown", "raise"),
        "'nothing'",
        "catalogue",
        "leave them out",
    )
    assert not (tmp_path / "recs.csv").exists()


def test_k_of_zero(fitted, tmp_path, capsys):
    told = recommend(fitted, tmp_path, capsys, "--k", 0)
    assert told.code == 2
    assert "k is 0; it must be at least 1" in told.err
    assert "Traceback" not in told.err


def test_unknown_candidates(fitted, tmp_path, capsys):
    candidates = tmp_path / "candidates.txt"
    candidates.write_text("i77\ni78\n")
    told = recommend(fitted, tmp_path, capsys, "--candidates", candidates, "--on-unknown", "ignore")
    assert_one_sentence(told, "none of the candidates is in the catalogue")
    candidates.write_text("\n")
    assert_one_sentence(recommend(fitted, tmp_path, capsys, "--candidates", candidates), str(candidates))


def test_unknown_ending_of_the_output(fitted, tmp_path, capsys):
    assert_one_sentence(
        recommend(fitted, tmp_path, capsys, "--out", tmp_path / "recs.xls"), "recs.xls", ".parquet"
    )


def test_workdir_without_a_run(tmp_path, capsys):
    told = run_here("evaluate.py", "--workdir", tmp_path / "none", capsys=capsys)
    assert_one_sentence(told, str(tmp_path / "none"), "holds no run", "train one")


def test_config_key_misspelt(tmp_path, capsys):
    config = jaxrec.config_to_json(jaxrec.preset("popularity"))
    config["train"]["epoch"] = 3
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config))
    assert_one_sentence(
        run_here("train.py", "--config", path, capsys=capsys), "config.train.epoch", "'epochs'"
    )


def test_workdir_of_another_data_set(train, tmp_path):
    assert train("--data", write_log(tmp_path / "first.csv")).code == 0
    second = write_log(tmp_path / "second.csv", [(user, item + 100, time) for user, item, time in ROWS[:-1]])
    told = train("--data", second)
    assert_one_sentence(told, str(tmp_path / "run"), "other data", "fingerprint", "choose another workdir")


def test_evaluating_on_other_data(fitted, tmp_path, capsys):
    other = write_log(tmp_path / "other.csv", ROWS[:-1])
    told = run_here("evaluate.py", "--workdir", fitted, "--data", other, capsys=capsys)
    assert_one_sentence(told, "was fitted on log", "this is other", "evaluate on the same split")


def test_workdir_that_cannot_be_made(train, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    told = train("--data", write_log(tmp_path / "log.csv"), "--workdir", file / "run")
    assert_one_sentence(told, f"cannot write to {file / 'run'}", "choose another workdir")


def test_no_space_on_the_disk(train, tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    told = train("--data", write_log(tmp_path / "log.csv"))
    assert_one_sentence(told, str(tmp_path / "run"), "No space left on device", "free space")


@pytest.fixture(scope="module")
def small_runs(tmp_path_factory):
    """Two runs of models of different width on the same data."""
    folder = tmp_path_factory.mktemp("models")
    split = data.leave_one_out(data.simulate(num_users=60, num_items=40))
    for width in (8, 16):
        model = EncoderRecommender(width=width, max_length=8, num_layers=1)
        config = Config(model=model, train=TrainConfig(epochs=1, batch_targets=256))
        jaxrec.fit(config, split, folder / str(width))
    return folder


def replace_part(small_runs, tmp_path, part):
    """The run of width 8 with a part of the run of width 16."""
    mixed = tmp_path / "mixed"
    shutil.copytree(small_runs / "8", mixed)
    shutil.rmtree(mixed / part)
    shutil.copytree(small_runs / "16" / part, mixed / part)
    return mixed


@pytest.mark.slow
def test_checkpoint_of_another_model(small_runs, tmp_path, capsys):
    mixed = replace_part(small_runs, tmp_path, "checkpoints")
    data_flags = (
        "--data",
        "simulated",
        "--data.simulated-users",
        60,
        "--data.simulated-items",
        40,
        "--data.min-user",
        1,
    )
    told = run_here(
        "train.py", "--workdir", mixed, *data_flags, "--data.min-item", 1, "--train.epochs", 2, capsys=capsys
    )
    assert_one_sentence(told, "none of the checkpoints can be read", "another model", str(mixed), "[8] here")


def test_weights_of_another_model(small_runs, tmp_path, capsys):
    mixed = replace_part(small_runs, tmp_path, "weights")
    told = recommend(mixed, tmp_path, capsys)
    assert_one_sentence(told, str(mixed / "weights"), "another configuration")


@pytest.mark.slow
def test_a_loss_that_is_not_finite_has_a_code_of_its_own(tmp_path, capsys):
    told = run_here(
        "train.py",
        *SMALL,
        *("--workdir", tmp_path / "run", "--optimizer.learning-rate", 1e30, "--optimizer.warmup-steps", 0),
        capsys=capsys,
    )
    assert_one_sentence(told, "the loss is not finite", "Lower the learning rate", code=1)
