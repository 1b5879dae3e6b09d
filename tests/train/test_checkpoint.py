"""Checkpoints: the latest few and the best stay, a damaged one is named and skipped, other models are refused."""

import contextlib
import errno
import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec.train.checkpoint import CheckpointError, Checkpoints, load_params, save_params
from jaxrec.train.state import TrainState

# Orbax leaves coroutines behind when a read fails; Python reports them wherever it next collects garbage.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


def make_state(value: float, width: int = 3) -> TrainState:
    table = jnp.full((4, width), value)
    return TrainState(
        {"table": table}, (table * 2, jnp.zeros((), jnp.int32)), jnp.asarray(int(value), jnp.int32)
    )


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path / "checkpoints", keep=2)
    yield opened
    opened.close()


def test_latest_and_best_stay(checkpoints):
    for step, score in [(10, 0.1), (20, 0.9), (30, None), (40, 0.3), (50, 0.2)]:
        checkpoints.save(step, make_state(step), None, {"call": step}, score=score)
    checkpoints.wait()
    assert checkpoints.steps() == [20, 40, 50]
    assert checkpoints.best_step() == 20


def test_round_trip(checkpoints):
    checkpoints.save(7, make_state(7), None, {"call": 7})
    checkpoints.wait()
    state, progress = checkpoints.restore_latest(make_state(0), None)
    assert progress == {"call": 7}
    jax.tree.map(np.testing.assert_array_equal, state, make_state(7))


def test_nothing_to_restore(checkpoints):
    assert checkpoints.restore_latest(make_state(0), None) is None


def test_a_score_replaces_a_checkpoint_without_one(checkpoints):
    checkpoints.save(5, make_state(5), None, {"call": 5})
    checkpoints.wait()
    checkpoints.save(5, make_state(5), None, {"call": 5, "scored": True}, score=0.5)
    checkpoints.wait()
    assert checkpoints.restore_latest(make_state(0), None)[1] == {"call": 5, "scored": True}


def test_a_changed_bit_in_the_numbers_is_noticed(checkpoints, caplog):
    table = jax.random.normal(jax.random.key(0), (500, 64))
    state = TrainState({"table": table}, (), jnp.zeros((), jnp.int32))
    for step in (1, 2):
        checkpoints.save(step, state, None, {"call": step})
    checkpoints.wait()
    files = [path for path in (checkpoints.directory / "2").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0x10
    largest.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="jaxrec"):
        restored, progress = checkpoints.restore_latest(state, None)
    assert progress == {"call": 1}
    assert "checksum" in caplog.text
    np.testing.assert_array_equal(restored.params["table"], table)


@pytest.mark.parametrize("damage", ["truncate", "delete", "flip"])
def test_damaged_checkpoint_is_named_and_the_one_before_is_used(checkpoints, caplog, damage):
    for step in (1, 2):
        checkpoints.save(step, make_state(step), None, {"call": step})
    checkpoints.wait()
    folder = checkpoints.directory / "2" / "state"
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    for path in files:
        content = bytearray(path.read_bytes())
        if damage == "delete":
            path.unlink()
        elif damage == "truncate":
            path.write_bytes(content[: len(content) // 2])
        else:
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="jaxrec"):
        state, progress = checkpoints.restore_latest(make_state(0), None)
    assert progress == {"call": 1}
    assert int(state.step) == 1
    assert str(checkpoints.directory / "2") in caplog.text


@pytest.mark.parametrize("content", ["", '{"sco', "[]", '{"score": null}'])
def test_a_damaged_score_is_named_and_the_checkpoint_before_is_used(tmp_path, caplog, content):
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(step), None, {"call": step}, score=step / 10)
    damaged = tmp_path / "checkpoints" / "2"
    (damaged / "metrics" / "metrics").write_text(content)
    with (
        caplog.at_level(logging.WARNING, logger="jaxrec"),
        contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints,
    ):
        assert f"laid aside as 2.damaged: the score in {damaged}" in caplog.text
        assert (checkpoints.steps(), checkpoints.best_step()) == ([1], 1)
        assert checkpoints.restore_latest(make_state(0), None)[1] == {"call": 1}
        checkpoints.save(2, make_state(2), None, {"call": 2}, score=0.2)
        checkpoints.wait()
        assert checkpoints.best_step() == 2


def test_where_the_best_is_damaged_the_next_best_is_used(checkpoints, caplog):
    for step, score in [(1, 0.9), (2, 0.5), (3, 0.4)]:
        checkpoints.save(step, make_state(step), None, {"call": step}, score=score)
    checkpoints.wait()
    assert checkpoints.steps() == [1, 2, 3]
    (checkpoints.directory / "1" / "state" / "manifest.ocdbt").write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="jaxrec"):
        state, step = checkpoints.restore_best(make_state(0))
    assert (step, int(state.step)) == (2, 2)
    assert f"trying the next best: {checkpoints.directory / '1'}" in caplog.text
    for name in ("2", "3"):
        (checkpoints.directory / name / "state" / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the checkpoints can be read"):
        checkpoints.restore_best(make_state(0))


def test_a_checkpoint_that_cannot_be_written_is_told_with_its_place(checkpoints, monkeypatch):
    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(OSError, match=f"cannot write to {checkpoints.directory}: No space left on device"):
        checkpoints.save(1, make_state(1), None, {})


def test_checkpoint_of_another_model_is_refused(checkpoints):
    checkpoints.save(1, make_state(1), None, {})
    checkpoints.wait()
    with pytest.raises(CheckpointError, match="another model"):
        checkpoints.restore_latest(make_state(0, width=5), None)


def test_params_round_trip_and_replace(tmp_path):
    for value in (1.0, 2.0):
        save_params(tmp_path / "weights", {"a": jnp.full((2, 2), value)})
    loaded = load_params(tmp_path / "weights", {"a": jnp.zeros((2, 2))})
    np.testing.assert_array_equal(loaded["a"], np.full((2, 2), 2.0))


def test_former_params_stand_in_where_a_process_was_killed_between_them(tmp_path):
    save_params(tmp_path / "weights", {"a": jnp.ones((2, 2))})
    (tmp_path / "weights").rename(tmp_path / "weights.former")
    like = {"a": jnp.zeros((2, 2))}
    np.testing.assert_array_equal(load_params(tmp_path / "weights", like)["a"], np.ones((2, 2)))
    save_params(tmp_path / "weights", {"a": jnp.full((2, 2), 2.0)})
    np.testing.assert_array_equal(load_params(tmp_path / "weights", like)["a"], np.full((2, 2), 2.0))
    assert not (tmp_path / "weights.former").exists()


def test_missing_and_foreign_params(tmp_path):
    with pytest.raises(CheckpointError, match="no weights"):
        load_params(tmp_path / "none", {"a": jnp.zeros(2)})
    save_params(tmp_path / "weights", {"a": jnp.zeros((2, 2))})
    with pytest.raises(CheckpointError, match="another"):
        load_params(tmp_path / "weights", {"b": jnp.zeros((2, 3))})
