"""The directory of a run: saved, loaded, gone on with, refused."""

import dataclasses
import errno
import json
import logging
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import MODEL, make_split, small_config

import jaxrec
from jaxrec import artifact, data
from jaxrec.config import EvaluationConfig
from jaxrec.data.source import DataConfig, load_split
from jaxrec.devices.mesh import ParallelConfig
from jaxrec.files import training_alone
from jaxrec.train.logging import Silent
from jaxrec.train.optimizer import OptimizerConfig
from jaxrec.train.options import TrainConfig
from jaxrec.train.parallel import Placement


def test_a_loaded_run_is_the_same(run, split):
    loaded = jaxrec.load(run.workdir)
    assert loaded.config == run.config
    jax.tree.map(np.testing.assert_array_equal, loaded.params, run.params)
    histories = [["i3", "i5"]]
    assert loaded.recommend(histories).equals(run.recommend(histories))
    with pytest.raises(ValueError, match="data given from Python under the name 'small', .*pass split="):
        loaded.evaluate("test")
    assert loaded.evaluate("test", split=split)["mrr"] == run.evaluate("test")["mrr"]


def saved_data(run):
    """The data section of a run's config on disk."""
    return json.loads((run.workdir / "config.json").read_text())["data"]


def test_the_config_says_where_the_data_came_from(run, tmp_path):
    assert run.config.data is None  # though the preset has a section
    assert saved_data(run) is None
    source = DataConfig(simulated_users=60, simulated_items=30)
    loaded = jaxrec.fit(jaxrec.preset("popularity"), load_split(source), tmp_path / "run")
    assert loaded.config.data == source
    again = jaxrec.load(tmp_path / "run")
    with pytest.raises(ValueError, match=r"without its data; pass split=.*load_split\(run\.config\.data\)"):
        again.evaluate("test")
    figures = again.evaluate("test", split=load_split(again.config.data), save=False)
    assert figures == loaded.evaluate("test", save=False)


def test_a_run_whose_config_names_other_data_is_gone_on_with(run, split, tmp_path):
    """As versions before wrote it: the section of the preset, whatever the split was."""
    former = shutil.copytree(run.workdir, tmp_path / "run")
    content = json.loads((former / "config.json").read_text())
    content["data"] = jaxrec.config_to_json(jaxrec.preset("sasrec"))["data"]
    (former / "config.json").write_text(json.dumps(content))
    assert jaxrec.load(former, split=split).config.data == DataConfig()
    longer = dataclasses.replace(small_config(), train=dataclasses.replace(run.config.train, epochs=3))
    assert jaxrec.fit(longer, split, former).config.data is None
    assert saved_data(jaxrec.load(former)) is None


def test_other_data_is_refused(run):
    other = make_split(seed=1)
    with pytest.raises(ValueError, match="the run was fitted on small"):
        jaxrec.load(run.workdir, split=other)
    with pytest.raises(ValueError, match="holds a run on other data .*fingerprint"):
        jaxrec.fit(small_config(), other, run.workdir)


def test_another_split_of_the_same_name_is_refused(tmp_path):
    log = data.simulate(num_users=60, num_items=30)
    ends = log.offsets[1:]

    def split(back):
        return data.Split(log, "mine", ends - back, ends - back, ends - 1)

    popular = jaxrec.preset("popularity")
    run = jaxrec.fit(popular, split(2), tmp_path / "run")
    assert run.evaluate("test")["protocol"]["positions"] == split(2).fingerprint()
    with pytest.raises(ValueError, match="positions.*; evaluate on the same split"):
        jaxrec.load(tmp_path / "run", split=split(3))
    with pytest.raises(ValueError, match="holds a run on other data .*positions"):
        jaxrec.fit(popular, split(3), tmp_path / "run")
    card = tmp_path / "run" / "data.json"  # as it was before positions were noted
    card.write_text(json.dumps({n: v for n, v in json.loads(card.read_text()).items() if n != "positions"}))
    assert jaxrec.load(tmp_path / "run", split=split(2)).evaluate("test")["hr@10"] >= 0
    jaxrec.fit(popular, split(2), tmp_path / "run")


def test_a_run_whose_training_has_not_ended_says_so(run, split, tmp_path):
    kept = shutil.copytree(run.workdir, tmp_path / "run")
    (kept / "completed.json").unlink()
    with pytest.warns(UserWarning, match="has not come to an end .*fit or train.py on the same directory"):
        jaxrec.load(kept)
    complete = shutil.copytree(run.workdir, tmp_path / "complete")
    loaded = jaxrec.load(complete)
    loaded.save(complete)
    jaxrec.load(complete)  # no warning, which would be an error
    shutil.rmtree(kept / "weights")
    with pytest.raises(ValueError, match="no weights at .*has not come to an end; run fit, or train.py"):
        jaxrec.load(kept)
    jaxrec.fit(small_config(), split, kept)
    jax.tree.map(np.testing.assert_array_equal, jaxrec.load(kept).params, run.params)


def test_epochs_of_little_data_that_have_no_step_are_passed_over(tmp_path):
    log = data.Interactions.from_sequences([[1, 2, 3, 4], [2, 3, 4, 1], [3, 4, 1, 2]])
    config = jaxrec.preset("sasrec", model=MODEL, train=TrainConfig(epochs=12, patience=2, evaluate_every=1))
    found = jaxrec.fit(config, data.leave_one_out(log), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["split"] == "validation"]
    assert len(steps) == len(set(steps)) < 12, "each was trained since the one before"
    assert np.isfinite(found.evaluate("test")["mrr"])


def test_another_configuration_is_refused(run, split):
    wider = dataclasses.replace(MODEL, width=32)
    with pytest.raises(ValueError, match=r"another configuration \(model.width: 16 there, 32 here\)"):
        jaxrec.fit(dataclasses.replace(small_config(), model=wider), split, run.workdir)
    config = small_config()
    other_keys = dataclasses.replace(config, train=dataclasses.replace(config.train, random_bits="rbg"))
    with pytest.raises(ValueError, match=r"another configuration \(train.random_bits: 'threefry2x32' there"):
        jaxrec.fit(other_keys, split, run.workdir)
    with_seen = dataclasses.replace(config, evaluation=EvaluationConfig(exclude_seen=False))
    with pytest.raises(ValueError, match=r"another configuration \(evaluation.exclude_seen: True there"):
        jaxrec.fit(with_seen, split, run.workdir)


def test_another_metric_of_selection_is_refused_and_other_cutoffs_are_not(run, split):
    by_hits = dataclasses.replace(small_config(), evaluation=EvaluationConfig(select_by="hr@10"))
    with pytest.raises(
        ValueError, match=r"configuration \(evaluation.select_by: 'ndcg@10' there, 'hr@10' here"
    ):
        jaxrec.fit(by_hits, split, run.workdir)
    longer = dataclasses.replace(small_config(), evaluation=EvaluationConfig(cutoffs=(1, 10)))
    result = jaxrec.fit(longer, split, run.workdir).evaluate("test", save=False)
    assert {"hr@1", "hr@10", "coverage@1"} <= result.keys()
    assert not {"hr@5", "hr@20"} & result.keys()


def test_a_directory_from_before_there_were_some_settings_goes_on(run, split, tmp_path):
    shutil.copytree(run.workdir, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    del content["evaluation"]["cutoffs"], content["evaluation"]["select_by"]
    del (
        content["model"]["rematerialise"],
        content["train"]["random_bits"],
        content["optimizer"]["step_factor"],
    )
    path.write_text(json.dumps(content))
    again = jaxrec.fit(small_config(), split, tmp_path / "run")
    assert again.training_seconds == run.training_seconds
    assert jaxrec.load(tmp_path / "run").config == run.config
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    dataclasses.replace(again, workdir=None).save(tmp_path / "run")


def test_a_setting_that_there_is_no_more_is_told(run, split, tmp_path):
    shutil.copytree(run.workdir, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    content["model"]["depth"] = 3
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"another configuration \(model.depth: 3 there, None here\)"):
        jaxrec.fit(small_config(), split, tmp_path / "run")


@pytest.mark.parametrize(("decay", "refused"), [("cosine", True), ("linear", True), ("step", False)])
def test_other_epochs_are_refused_where_the_learning_rate_falls_over_all(split, tmp_path, decay, refused):
    def prepare(epochs):
        changes = {"train": TrainConfig(epochs=epochs), "optimizer": OptimizerConfig(decay=decay)}
        config = dataclasses.replace(small_config(), **changes)
        artifact.prepare(tmp_path, config, split, split.train_item_counts())

    prepare(epochs=4)
    prepare(epochs=4)
    if not refused:
        prepare(epochs=5)
        return
    with pytest.raises(
        ValueError, match=rf"run of 4 epochs .*decay={decay}.* and 5 would .*repeat train.epochs=4"
    ):
        prepare(epochs=5)
    prepare(epochs=4)


def test_fitting_again_changes_nothing(run, split):
    again = jaxrec.fit(small_config(), split, run.workdir)
    jax.tree.map(np.testing.assert_array_equal, again.params, run.params)


def files(directory):
    """When each file was written."""
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


def test_a_complete_run_is_only_read(run, split, tmp_path):
    kept = shutil.copytree(run.workdir, tmp_path / "run")
    before = files(kept)
    again = jaxrec.fit(small_config(parallel=ParallelConfig(devices=1)), split, kept)
    assert files(kept) == before
    assert again.training_seconds == run.training_seconds
    jax.tree.map(np.testing.assert_array_equal, again.params, run.params)
    assert again.evaluate("validation", save=False) == run.evaluate("validation", save=False)
    popular = jaxrec.preset("popularity")
    first = jaxrec.fit(popular, split, tmp_path / "popular")
    before = files(first.workdir)
    assert jaxrec.fit(popular, split, first.workdir).recommend([["i1"]]).equals(first.recommend([["i1"]]))
    assert files(first.workdir) == before


def test_a_complete_run_takes_over_titles_and_categories(run, split, tmp_path):
    kept = shutil.copytree(run.workdir, tmp_path / "run")
    ids = split.interactions.item_ids
    words = [f"title {row}" for row in range(len(ids))]
    log = split.interactions.with_metadata(data.ItemMetadata(ids, words, [[word] for word in words]))
    titled = dataclasses.replace(split, interactions=log)
    weights = {path: time for path, time in files(kept).items() if "weights" in path.parts}
    jaxrec.fit(small_config(), titled, kept)
    loaded = jaxrec.load(kept)
    (title,) = loaded.recommend([["i1"]], k=1, with_titles=True)["title"]
    assert title in words
    assert {path: time for path, time in files(kept).items() if "weights" in path.parts} == weights
    before = files(kept)
    for log in (titled, split):  # the same again, and none
        jaxrec.fit(small_config(), log, kept)
        assert files(kept) == before


@pytest.mark.parametrize("changes", [{"patience": 1}, {"evaluate_every": 2}])
def test_settings_under_which_a_complete_training_would_have_ended_elsewhere_are_refused(run, split, changes):
    config = small_config()  # two evaluations
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))
    with pytest.raises(
        ValueError, match=r"holds a complete training with evaluate_every \d and patience \d+; with"
    ):
        jaxrec.fit(other, split, run.workdir)
    for patience in (2, config.train.patience + 1):  # it could not have been over
        train = dataclasses.replace(config.train, patience=patience)
        jaxrec.fit(dataclasses.replace(config, train=train), split, run.workdir)


# The other leaves' reads answer to an event loop that orbax closed at the first failure.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_weights_are_taken_from_the_checkpoints_again(run, split, tmp_path, caplog):
    damaged = shutil.copytree(run.workdir, tmp_path / "run")
    (damaged / "weights" / "manifest.ocdbt").write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="jaxrec"):
        again = jaxrec.fit(small_config(), split, damaged)
    assert f"the weights at {damaged / 'weights'} cannot be read" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, again.params, run.params)
    jax.tree.map(np.testing.assert_array_equal, jaxrec.load(damaged).params, run.params)


def test_saving_over_another_run_is_refused(run, split, tmp_path):
    before = files(run.workdir)
    other = dataclasses.replace(run, config=small_config(seed=1), workdir=None)
    with pytest.raises(
        ValueError, match=r"holds another run \(seed: 0 there, 1 here\); choose another directory"
    ):
        other.save(run.workdir)
    unsaved = dataclasses.replace(run, workdir=None)
    with pytest.raises(
        ValueError, match=r"what a training left \(checkpoints, metrics.jsonl\), and this run did"
    ):
        unsaved.save(run.workdir)
    assert files(run.workdir) == before
    unsaved.save(tmp_path / "new").save(tmp_path / "new")
    with pytest.raises(ValueError, match="holds another run"):
        other.save(tmp_path / "new")
    for again in (jaxrec.load(tmp_path / "new"), dataclasses.replace(run, workdir=None)):
        assert again.save(tmp_path / "new").workdir == tmp_path / "new"


def test_a_second_training_in_the_directory_is_refused(split, tmp_path):
    config = jaxrec.preset("popularity")
    with (
        training_alone(tmp_path / "run"),
        pytest.raises(
            OSError, match=rf"at work in .*run \(process {os.getpid()} on .*choose another workdir"
        ),
    ):
        jaxrec.fit(config, split, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["training.lock"]
    assert jaxrec.fit(config, split, tmp_path / "run").workdir == tmp_path / "run"


class Unread(Silent):
    """Writes to somebody who has gone."""

    def start(self, total_epochs, record):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def test_an_error_of_something_else_is_not_told_as_one_of_the_workdir(split, tmp_path):
    with pytest.raises(BrokenPipeError, match="Broken pipe") as caught:
        jaxrec.fit(small_config(), split, tmp_path / "run", reporter=Unread())
    assert "workdir" not in str(caught.value)


def test_a_loss_that_is_not_finite_names_no_folder_that_is_gone(split, monkeypatch):
    create = Placement.create_state

    def spoilt(*arguments):
        state = create(*arguments)
        return dataclasses.replace(state, params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params))

    monkeypatch.setattr(Placement, "create_state", spoilt)
    with pytest.raises(FloatingPointError, match=r"not finite .*without a workdir .* give one") as caught:
        jaxrec.fit(small_config(), split)
    assert "jaxrec-" not in str(caught.value)


def test_an_evaluation_that_cannot_be_kept_is_returned(split, tmp_path):
    popular = jaxrec.fit(jaxrec.preset("popularity"), split, tmp_path / "run")
    (tmp_path / "run" / "evaluations").write_text("in the way")
    with pytest.warns(UserWarning, match="evaluation could not be kept in .*test-seen-excluded.json"):
        result = popular.evaluate("test")
    assert result == popular.evaluate("test", save=False)


def test_nowhere_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no run: config.json is missing"):
        jaxrec.load(tmp_path)


def test_misspelt_key_in_a_saved_config(run, tmp_path):
    saved = json.loads((run.workdir / "config.json").read_text())
    saved["model"]["widht"] = saved["model"].pop("width")
    with pytest.raises(
        ValueError, match=r"config.model.widht is not a key of EncoderRecommender; did you mean 'width'"
    ):
        jaxrec.config_from_json(saved)


def test_a_read_only_place_is_named(split, tmp_path):
    if os.geteuid() == 0:
        place = tmp_path / "file"  # root may write everywhere, but not below a file
        place.write_text("")
        place = place / "run"
    else:
        place = tmp_path / "locked"
        place.mkdir(mode=0o500)
        place = place / "run"
    with pytest.raises(OSError, match="cannot write to .*; free space or choose another workdir"):
        jaxrec.fit(jaxrec.preset("popularity"), split, place)


class Interrupting(Silent):
    """Presses Ctrl-C once, after the first call."""

    def __init__(self):
        self.presses = 1

    def steps(self, record):
        if self.presses:
            self.presses = 0
            signal.raise_signal(signal.SIGINT)


def test_training_stopped_without_a_workdir_is_lost(split, tmp_path):
    with pytest.raises(KeyboardInterrupt, match="without a workdir nothing of it is kept"):
        jaxrec.fit(small_config(), split, reporter=Interrupting())
    stopped = jaxrec.fit(small_config(), split, tmp_path / "run", reporter=Interrupting())
    assert stopped.interrupted == signal.SIGINT
    assert "training was interrupted" in repr(stopped)


def test_progress_is_shown_on_request(split, capsys):
    told = []

    class Told(Silent):
        def evaluation(self, record):
            told.append(record["epoch"])

    jaxrec.fit(small_config(), split, progress=True, reporter=Told())
    lines = [line for line in capsys.readouterr().out.splitlines() if "validation NDCG@10" in line]
    assert len(lines) == len(told) > 0
    jaxrec.fit(small_config(), split)
    assert capsys.readouterr().out == ""
