"""A disk that fills up while a model is trained: one sentence, nothing good lost, the same call goes on."""

import errno
import gc
import os
import resource
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrec
from jaxrec import data
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.train.checkpoint import load_params, save_params, write_errors
from jaxrec.train.logging import Silent
from jaxrec.train.options import TrainConfig

# Writes that nobody waits for any more end after Orbax has closed its event loop.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONFIG = jaxrec.preset(
    "sasrec",
    model=EncoderRecommender(max_length=8, width=8, num_layers=1),
    train=TrainConfig(epochs=4, batch_targets=128, steps_per_call=2, length_buckets=False),
)


def limit_files(size: int | None) -> None:
    """The operating system refuses to write more than so many bytes into a file, in every thread; or no longer."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


@contextmanager
def files_limited(size: int | None):
    """A limit that is gone after the block; ``None`` leaves it to the block to set one."""
    try:
        if size is not None:
            limit_files(size)
        yield
    finally:
        limit_files(None)


class FullAt(Silent):
    """Limits files at an evaluation, when the checkpoints of those before it are whole."""

    def __init__(self, checkpoints: Path, number: int):
        self.checkpoints, self.number, self.seen = checkpoints, number, []

    def evaluation(self, record):
        if len(self.seen) == self.number - 1:
            deadline = time.monotonic() + 60
            while self.seen and not (self.checkpoints / str(self.seen[-1])).exists():
                assert time.monotonic() < deadline, "the former checkpoint is not written"
                time.sleep(0.01)
            limit_files(4096)
        self.seen.append(record["step"])


def wait_for_last_writes(folder: Path) -> None:
    """Until nothing has changed for half a second: here the process that failed goes on, and its writes with it."""
    former, since, deadline = None, time.monotonic(), time.monotonic() + 60
    while time.monotonic() < min(since + 0.5, deadline):
        now = [(place, sorted(files)) for place, _, files in os.walk(folder)]
        if now != former:
            former, since = now, time.monotonic()
        time.sleep(0.02)


@pytest.fixture
def leave_no_writes_behind():
    """What nobody waits for any more is collected here, where its complaints are expected, not in a later test."""
    yield
    gc.collect()
    gc.collect()


@pytest.fixture(scope="module")
def split():
    return data.leave_one_out(data.simulate(num_users=60, num_items=40, seed=0))


@pytest.fixture(scope="module")
def whole(split):
    return jaxrec.fit(CONFIG, split)


@pytest.mark.slow
@pytest.mark.usefixtures("leave_no_writes_behind")
@pytest.mark.parametrize("evaluation", [2, 4])
def test_training_ends_with_one_sentence_and_goes_on_when_there_is_space(split, whole, tmp_path, evaluation):
    """Orbax's threads fail; the failure comes out at the next save, or at the end (evaluation 4 is the last)."""
    workdir = tmp_path / "run"
    full = FullAt(workdir / "checkpoints", evaluation)
    sentence = "File too large; free space or choose another workdir"
    with files_limited(None), pytest.raises(OSError, match=sentence) as caught:
        jaxrec.fit(CONFIG, split, workdir, reporter=full)
    assert caught.value.errno == errno.EFBIG
    assert str(workdir) in str(caught.value)
    assert "\n" not in str(caught.value)
    wait_for_last_writes(workdir / "checkpoints")
    saved = [int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
    assert max(saved) == full.seen[evaluation - 2], "the last one before the disk was full"
    resumed = jaxrec.fit(CONFIG, split, workdir)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)


@pytest.mark.usefixtures("leave_no_writes_behind")
def test_former_weights_stay_until_the_new_ones_are_whole(tmp_path):
    like = {"a": jnp.zeros((64, 64))}
    save_params(tmp_path / "weights", {"a": jnp.ones((64, 64))})
    noise = {"a": jax.random.normal(jax.random.key(0), (64, 64))}  # not to be compressed
    with files_limited(2048), pytest.raises(OSError, match="File too large"):
        save_params(tmp_path / "weights", noise)
    np.testing.assert_array_equal(load_params(tmp_path / "weights", like)["a"], 1.0)
    save_params(tmp_path / "weights", noise)
    np.testing.assert_array_equal(load_params(tmp_path / "weights", like)["a"], noise["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (
            "RESOURCE_EXHAUSTED: Error writing \"a\": No space left on device [os_error_code='28']",
            errno.ENOSPC,
        ),
        ("Error writing [OS error 13: EACCES Permission denied]", errno.EACCES),
        ("RESOURCE_EXHAUSTED: Error writing", errno.ENOSPC),
    ],
)
def test_what_tensorstore_tells_of_the_operating_system(words, number):
    with pytest.raises(OSError, match=os.strerror(number)) as caught, write_errors():
        raise ValueError(words)
    assert caught.value.errno == number


def test_other_errors_are_left_as_they_are():
    with pytest.raises(ValueError, match="another model"), write_errors():
        raise ValueError("another model")
