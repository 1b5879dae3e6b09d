"""The training loop: resuming to the bit, early stopping, the best checkpoint, signals, non-finite losses."""

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_log

from jaxrec.data.windows import plan_windows
from jaxrec.devices.mesh import ParallelConfig
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.train.checkpoint import Checkpoints
from jaxrec.train.logging import JsonLines
from jaxrec.train.loop import Trainer
from jaxrec.train.optimizer import OptimizerConfig
from jaxrec.train.options import TrainConfig
from jaxrec.train.parallel import Placement


class Recorder:
    """Keeps the records it is given; may act on each."""

    def __init__(self, on_steps=None):
        self.step_records, self.evaluations, self.on_steps = [], [], on_steps

    def start(self, total_epochs, record): ...

    def steps(self, record):
        self.step_records.append(record)
        if self.on_steps:
            self.on_steps(record)

    def evaluation(self, record):
        self.evaluations.append(record)

    def close(self): ...


def small_model() -> EncoderRecommender:
    return EncoderRecommender(
        num_items=40, max_length=8, width=8, num_layers=1, num_heads=2, dropout_rate=0.2
    )


def make_trainer(
    directory,
    *,
    epochs=4,
    patience=100,
    evaluate=None,
    evaluate_every=1,
    reporter=None,
    source="grain",
    row_multiple=8,
    ema_decay=0.0,
):
    lengths = np.random.default_rng(0).integers(3, 20, 60)
    items, offsets = make_log(lengths)
    plan = plan_windows(
        offsets[:-1], offsets[1:], max_length=8, batch_targets=64, steps=2, row_multiple=row_multiple
    )
    return Trainer(
        small_model(),
        items % 40 + 1,
        plan,
        Placement(ParallelConfig()),
        TrainConfig(
            epochs=epochs,
            batch_targets=64,
            steps_per_call=2,
            evaluate_every=evaluate_every,
            patience=patience,
            batch_source=source,
        ),
        OptimizerConfig(learning_rate=1e-2, ema_decay=ema_decay),
        checkpoints=Checkpoints(directory),
        evaluate=evaluate,
        seed=3,
        reporter=reporter,
    )


def run(directory, **arguments):
    trainer = make_trainer(directory, **arguments)
    result = trainer.run()
    trainer.checkpoints.close()
    return result


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Four epochs that nothing disturbs, and their metrics file."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "metrics.jsonl"
    return run(folder / "run", epochs=4, reporter=JsonLines(path, every=2)), path


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.slow
def test_loss_falls_and_best_is_last_without_evaluation(tmp_path):
    recorder = Recorder()
    result = run(tmp_path / "run", epochs=8, reporter=recorder)
    losses = [record["loss"] for record in recorder.step_records]
    assert losses[-1] < losses[0]
    assert not result.interrupted
    assert result.step == recorder.step_records[-1]["step"]
    assert all(record["targets_per_second"] > 0 for record in recorder.step_records)


@pytest.mark.slow
def test_two_halves_make_a_whole(tmp_path, whole):
    run(tmp_path / "halves", epochs=2)
    halves = run(tmp_path / "halves", epochs=4)
    assert whole[0].step == halves.step
    assert_same(whole[0].params, halves.params)


def test_batches_of_another_size_do_not_go_on(tmp_path):
    """As on a number of devices that divides the rows in another way."""
    run(tmp_path / "run", epochs=1)
    with pytest.raises(ValueError, match=r"with \[8\] rows a batch .* would be \[12, 6\].* divisor of that"):
        make_trainer(tmp_path / "run", row_multiple=6)


@pytest.mark.slow
def test_windows_cut_on_the_device_train_the_same_model(tmp_path, whole):
    device = run(tmp_path / "device", epochs=4, source="device")
    assert_same(whole[0].params, device.params)
    run(tmp_path / "mixed", epochs=2, source="device")
    assert_same(whole[0].params, run(tmp_path / "mixed", epochs=4).params)


def test_early_stopping_returns_the_best(tmp_path):
    scores = iter([0.1, 0.5, 0.3, 0.2, 0.4, 0.9])
    tables = []

    def evaluate(params):
        tables.append(np.asarray(params["item_embedding"]["table"]))
        return {"ndcg@10": next(scores), "hr@10": 0.0}

    recorder = Recorder()
    result = run(tmp_path / "run", epochs=50, patience=3, evaluate=evaluate, reporter=recorder)
    assert [record["best"] for record in recorder.evaluations] == [True, True, False, False, False]
    np.testing.assert_array_equal(result.params["item_embedding"]["table"], tables[1])
    assert result.step == recorder.evaluations[1]["step"]


@pytest.mark.parametrize("best", [0, 1])
def test_with_ema_decay_the_average_is_evaluated_and_returned(tmp_path, best):
    """After the first epoch (a checkpoint read back) and after the last one."""
    tables, moved = [], []

    def evaluate(params):
        tables.append(np.asarray(params["item_embedding"]["table"]))
        moved.append(np.asarray(trainer.state.params["item_embedding"]["table"]))
        return {"ndcg@10": 0.5 if len(tables) == best + 1 else 0.1 * len(tables)}

    trainer = make_trainer(tmp_path / "run", epochs=2, evaluate=evaluate, ema_decay=0.9)
    result = trainer.run()
    trainer.checkpoints.close()
    np.testing.assert_array_equal(result.params["item_embedding"]["table"], tables[best])
    for average, last in zip(tables, moved, strict=True):
        assert np.abs(average - last).max() > 1e-3


@pytest.mark.slow
def test_two_halves_make_a_whole_average(tmp_path):
    whole = run(tmp_path / "whole", epochs=4, ema_decay=0.9)
    run(tmp_path / "halves", epochs=2, ema_decay=0.9)
    assert_same(whole.params, run(tmp_path / "halves", epochs=4, ema_decay=0.9).params)


# Orbax leaves coroutines behind when a read fails; Python reports them when it next collects garbage.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_where_the_best_checkpoint_is_damaged_the_next_best_is_returned(tmp_path, caplog):
    scores = iter([0.5, 0.4, 0.3, 0.2])
    recorder = Recorder()
    arguments = {"epochs": 50, "patience": 3, "reporter": recorder}
    best = run(tmp_path / "run", evaluate=lambda params: {"ndcg@10": next(scores), "hr@10": 0.0}, **arguments)
    steps = [record["step"] for record in recorder.evaluations]
    assert best.step == steps[0]
    (tmp_path / "run" / str(best.step) / "state" / "manifest.ocdbt").write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="jaxrec"):
        next_best = run(tmp_path / "run", evaluate=lambda params: {}, **arguments)
    assert next_best.step == steps[2]  # the latest two are kept, and it is the better one
    assert str(tmp_path / "run" / str(best.step)) in caplog.text
    gc.collect()  # here, not within another test


def test_the_time_left_counts_all_windows(whole):
    """Of histories longer than a window more targets are trained than there are."""
    left = [json.loads(line)["seconds_left"] for line in whole[1].read_text().splitlines()]
    assert min(left[:-1]) > 0
    assert left[-1] == 0


def test_a_run_cut_within_an_epoch_is_not_taken_for_a_shorter_one(tmp_path):
    def stop(record):
        if record["step"] == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    cut = run(tmp_path / "run", epochs=4, evaluate_every=4, reporter=Recorder(stop))
    assert cut.progress.evaluated_epoch == 0
    with pytest.raises(
        ValueError, match=r"of 1\.\d\d epochs, and train.epochs=1 is fewer; ask for at least 2"
    ):
        make_trainer(tmp_path / "run", epochs=1, evaluate_every=4)


@pytest.mark.slow
def test_a_signal_saves_and_a_second_run_goes_on(tmp_path, whole):
    def stop(record):
        if record["step"] == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    cut = run(tmp_path / "cut", epochs=4, reporter=Recorder(stop))
    assert cut.interrupted
    resumed = run(tmp_path / "cut", epochs=4)
    assert not resumed.interrupted
    assert_same(whole[0].params, resumed.params)


def test_no_signal_handlers_outside_the_main_thread(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(tmp_path / "run", epochs=1)))
    thread.start()
    thread.join()
    assert not results[0].interrupted


def test_non_finite_loss_names_step_and_checkpoint(tmp_path):
    run(tmp_path / "run", epochs=1)
    broken = make_trainer(tmp_path / "run", epochs=3)
    table = broken.state.params["item_embedding"]["table"]
    broken.state.params["item_embedding"]["table"] = table * jnp.nan
    with pytest.raises(FloatingPointError, match=r"at or before step \d+; last good checkpoint: .*run"):
        broken.run()


def test_metrics_file_has_no_line_twice_after_resuming(tmp_path, whole):
    path = tmp_path / "metrics.jsonl"
    run(tmp_path / "run", epochs=2, reporter=JsonLines(path, every=2))
    with path.open("a") as file:
        file.write(
            '{"split": "train", "step": 100000, "loss": 1.0}\n{"split": "tr'
        )  # after the checkpoint; cut short
    run(tmp_path / "run", epochs=4, reporter=JsonLines(path, every=2))
    read = lambda name: [json.loads(line) for line in name.read_text().splitlines()]  # noqa: E731
    resumed, undisturbed = read(path), read(whole[1])
    assert [(r["step"], r["loss"]) for r in resumed] == [(r["step"], r["loss"]) for r in undisturbed]


TRAINING_PROCESS = """
import sys, time
sys.path.insert(0, {tests!r}); sys.path.insert(0, {here!r})
import jax
import numpy as np
from test_loop import Recorder, make_trainer
directory, slowly = sys.argv[1], sys.argv[2] == "slowly"
def report(record):
    print(record["step"], flush=True)
    time.sleep(0.02 * slowly)
trainer = make_trainer(directory, epochs=40, evaluate_every=40, reporter=Recorder(report))
if slowly:
    object.__setattr__(trainer.config, "checkpoint_minutes", 0.002)
first = trainer.step
result = trainer.run()
trainer.checkpoints.close()
leaves = {{str(n): leaf for n, leaf in enumerate(jax.tree.leaves(result.params))}}
np.savez(directory + ".npz", first=first, last=result.step, **leaves)
"""


def training_process(directory: Path, *, slowly: bool = False) -> subprocess.Popen:
    """A process that trains in a directory, prints each step, and writes what came out beside the directory."""
    here = Path(__file__).parent
    script = TRAINING_PROCESS.format(tests=str(here.parent), here=str(here))
    command = [sys.executable, "-c", script, str(directory), "slowly" if slowly else "quickly"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_kill_nine_in_mid_epoch_then_resume_is_bit_for_bit(tmp_path):
    """A process killed without warning, at whatever moment, resumes to the parameters of an undisturbed run."""
    process = training_process(tmp_path / "killed", slowly=True)
    deadline = time.monotonic() + 120
    for line in process.stdout:
        finished = (tmp_path / "killed").exists() and any(
            p.name.isdigit() for p in (tmp_path / "killed").iterdir()
        )
        if (int(line) > 40 and finished) or time.monotonic() > deadline:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for name in ("killed", "whole"):
        process = training_process(tmp_path / name)
        process.communicate(timeout=240)
        assert process.returncode == 0
    resumed, whole = np.load(tmp_path / "killed.npz"), np.load(tmp_path / "whole.npz")
    assert 0 == whole["first"] < resumed["first"] < resumed["last"] == whole["last"]
    assert resumed.files == whole.files
    for name in set(whole.files) - {"first"}:
        np.testing.assert_array_equal(resumed[name], whole[name])
