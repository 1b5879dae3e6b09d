"""Several processes on loopback train one model: the numbers of one process, signals, resuming, errors.

One run of two processes with two devices each is stopped by SIGTERM to the second one, and finished twice: by one
process with four devices, and by four with one each, between which the item table is split, with windows cut on the
devices. Both must end where a single process ends that nobody disturbs.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import polars as pl
import pytest
from command_line import EXPERIMENTS, environment, experiment
from polars.testing import assert_frame_equal

import jaxrec
from jaxrec.data.source import DataConfig
from jaxrec.devices.distributed import DistributedConfig
from jaxrec.models.encoder import EncoderRecommender
from jaxrec.train.options import TrainConfig

WORKER = Path(__file__).with_name("worker.py")
LIMIT = 400  # seconds that one launch may take on a busy machine
CONFIG = jaxrec.preset(
    "sasrec",
    model=EncoderRecommender(max_length=8, width=16, num_layers=1, num_heads=2, dropout_rate=0.1),
    data=DataConfig(simulated_users=120, simulated_items=60),
    train=TrainConfig(epochs=2, batch_targets=128, steps_per_call=2, length_buckets=False),
)
STOP_AT = 24  # a step of the second of two epochs


class Ended(NamedTuple):
    """What one process left."""

    code: int
    out: str
    err: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def launched(commands: list[list[str]], devices: int, folder: Path) -> Iterator[list[subprocess.Popen]]:
    """Processes with so many devices each; none outlives the block. Their output goes to files."""
    variables = {
        **environment(),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(EXPERIMENTS),
    }
    processes = []
    with contextlib.ExitStack() as files:
        try:
            for index, command in enumerate(commands):
                out, err = (
                    files.enter_context((folder / f"{name}{index}").open("w")) for name in ("out", "err")
                )
                processes.append(
                    subprocess.Popen([sys.executable, *command], env=variables, stdout=out, stderr=err)
                )
            yield processes
        finally:
            for process in processes:
                process.kill()
                process.wait()


def wait(processes: list[subprocess.Popen], folder: Path) -> list[Ended]:
    """Waits for the end of all; those that take too long are killed."""
    deadline = time.monotonic() + LIMIT
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 1.0))
    codes = [process.poll() for process in processes]
    return [
        Ended(code, (folder / f"out{index}").read_text(), (folder / f"err{index}").read_text())
        for index, code in enumerate(codes)
    ]


def worker_commands(
    config: Path, workdir: Path, processes: int, changes: tuple[str, ...] = ()
) -> list[list[str]]:
    address = f"localhost:{free_port()}"
    others = [[address, str(processes), str(index)] for index in range(processes)]
    return [
        [str(WORKER), str(config), str(workdir), *(others[index] if processes > 1 else []), *changes]
        for index in range(processes)
    ]


def train(
    config: Path, workdir: Path, processes: int, devices: int, *changes: str, code: int = 0
) -> list[Ended]:
    """A launch of the worker that is waited for."""
    folder = workdir.with_name(f"{workdir.name}-output{len(list(workdir.parent.iterdir()))}")
    folder.mkdir()
    commands = worker_commands(config, workdir, processes, changes)
    with launched(commands, devices, folder) as running:
        ended = wait(running, folder)
    assert [one.code for one in ended] == [code] * processes, ended
    return ended


def calls_of(out: str) -> int:
    """The last step that a worker has printed."""
    whole = out[: out.rfind("\n") + 1]  # the last line may be half written
    steps = [line.split()[1] for line in whole.splitlines() if line.startswith("step ")]
    return int(steps[-1]) if steps else 0


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("multi-host") / "config.json"
    path.write_text(json.dumps(jaxrec.config_to_json(CONFIG)))
    return path


@pytest.fixture(scope="module")
def undisturbed(config) -> Path:
    """The run of one process with four devices."""
    train(config, config.parent / "one", 1, 4)
    return config.parent / "one"


@pytest.fixture(scope="module")
def stopped(config) -> tuple[Path, list[Ended]]:
    """The run of two processes with two devices each, the second of which gets SIGTERM."""
    workdir, folder = config.parent / "two", config.parent / "two-output"
    folder.mkdir()
    commands = worker_commands(
        config, workdir, 2, ("pause=0.1", "checkpoint_minutes=0.002", "keep_checkpoints=50")
    )
    with launched(commands, 2, folder) as running:
        deadline = time.monotonic() + LIMIT
        while calls_of((folder / "out0").read_text()) < STOP_AT and time.monotonic() < deadline:
            assert all(process.poll() is None for process in running), wait(running, folder)
            time.sleep(0.02)
        os.kill(running[1].pid, signal.SIGTERM)
        return workdir, wait(running, folder)


@pytest.fixture(scope="module")
def finished(config, stopped) -> dict[str, Path]:
    """The stopped run, finished by other numbers of processes."""
    workdir = stopped[0]
    runs = {}
    for name, processes, devices, changes in (
        ("by-one", 1, 4, ()),
        ("by-four", 4, 1, ("model_devices=2", "batch_source=device")),
    ):
        runs[name] = workdir.with_name(name)
        shutil.copytree(workdir, runs[name])
        train(config, runs[name], processes, devices, *changes)
    return runs


def records(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def calls(workdir: Path) -> dict[str, list[float]]:
    """Loss and gradient norm of each call, by step."""
    return json.loads(workdir.with_name(workdir.name + ".json").read_text())


def assert_same_records(found: list[dict], expected: list[dict]) -> None:
    """Validation records, times aside, are equal to rounding."""
    expected = expected[: len(found)]
    assert len(found) == len(expected) > 0
    for here, there in zip(found, expected, strict=True):
        numbers = {name for name, value in there.items() if isinstance(value, float)} - {"seconds"}
        assert {"loss", "ndcg@10", "hr@10"} <= numbers
        for name in numbers:
            np.testing.assert_allclose(here[name], there[name], rtol=1e-5, err_msg=name)
        assert (here["step"], here["best"]) == (there["step"], there["best"])


@pytest.mark.slow
def test_a_signal_to_one_process_saves_and_ends_all(stopped, undisturbed):
    workdir, ended = stopped
    assert [one.code for one in ended] == [143, 143], ended
    assert calls_of(ended[1].out) == 0  # process 0 alone reports
    assert ended[0].err == ended[1].err == ""
    last = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    assert STOP_AT <= calls_of(ended[0].out) <= last < records(undisturbed)[-1]["step"]
    kept = {path.name for path in (workdir / "checkpoints" / str(last) / "data").iterdir()}
    assert {"process_0-of-2.json", "process_1-of-2.json"} <= kept
    # By the clock of process 0, checkpoints were written within the epoch too.
    evaluated = {str(record["step"]) for record in records(workdir)}
    assert {path.name for path in (workdir / "checkpoints").iterdir()} - evaluated - {str(last)}


@pytest.mark.slow
def test_two_processes_validate_like_one(stopped, undisturbed):
    assert_same_records(records(stopped[0]), records(undisturbed))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["by-one", "by-four"])
def test_another_number_of_processes_goes_on_to_the_same_end(finished, undisturbed, name):
    workdir = finished[name]
    assert_same_records(records(workdir), records(undisturbed))
    assert len(records(workdir)) == len(records(undisturbed))
    found, expected = calls(workdir), calls(undisturbed)
    assert 0 < len(found) < len(expected)  # the calls after the signal
    for step, values in found.items():
        np.testing.assert_allclose(values, expected[step], rtol=2e-5, err_msg=f"step {step}")
    # A key's bias moves no weight of attention: its gradient is rounding, which Adam makes steps of.
    here, there = (jaxrec.load(path).params for path in (workdir, undisturbed))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), here, there)
    metrics = [
        json.loads((path / "evaluations" / "test-seen-excluded.json").read_text())
        for path in (workdir, undisturbed)
    ]
    np.testing.assert_allclose(metrics[0]["ndcg@10"], metrics[1]["ndcg@10"], rtol=1e-5)


@pytest.mark.slow
def test_two_processes_evaluate_and_recommend_like_one(undisturbed, tmp_path):
    """Against the evaluation at the end of the run of one process, and lists made in this one."""
    histories = tmp_path / "histories.csv"
    histories.write_text("user_id,item_id\n" + "".join(f"{user},{user + 3}\n" for user in range(5)))
    alone = jaxrec.load(undisturbed).recommend(pl.read_csv(histories), k=10)
    expected = json.loads((undisturbed / "evaluations" / "test-seen-excluded.json").read_text())
    where = ["--workdir", str(undisturbed)]
    scripts = {
        "evaluation.json": ["evaluate.py", *where, "--no-popularity"],
        "lists.csv": ["recommend.py", *where, "--histories", str(histories)],
    }
    for name, (script, *flags) in scripts.items():
        command = [str(EXPERIMENTS / script), *flags, "--out", str(tmp_path / name)]
        command += ["--distributed.coordinator", f"localhost:{free_port()}", "--distributed.processes=2"]
        folder = tmp_path / script
        folder.mkdir()
        commands = [[*command, f"--distributed.process-index={index}"] for index in range(2)]
        with launched(commands, 1, folder) as running:
            ended = wait(running, folder)
        assert [one.code for one in ended] == [0, 0], ended
        said = [[line for line in one.out.splitlines() if not line.startswith("[Gloo]")] for one in ended]
        assert [bool(lines) for lines in said] == [True, False], said
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["ndcg@10"] > 0
    np.testing.assert_allclose(found["ndcg@10"], expected["ndcg@10"], rtol=1e-6)
    lists = pl.read_csv(tmp_path / "lists.csv")
    assert len(lists) == 50
    alone.write_csv(tmp_path / "alone.csv")
    assert_frame_equal(lists, pl.read_csv(tmp_path / "alone.csv"), rel_tol=1e-5)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_all(config):
    ended = train(config, config.parent / "broken", 2, 1, "learning_rate=1e30", "warmup_steps=0", code=1)
    assert ended[0].err.startswith("error: the loss is not finite at or before step")
    assert ended[1].err.startswith("error: process 1: the loss is not finite at or before step")


@pytest.mark.slow
def test_processes_with_other_settings_refuse_to_start(config):
    folder = config.parent / "other-output"
    folder.mkdir()
    commands = worker_commands(config, config.parent / "other", 2)
    commands[1].append("seed=5")
    with launched(commands, 1, folder) as running:
        ended = wait(running, folder)
    assert [one.code for one in ended] == [2, 2], ended
    for one in ended:
        assert (
            "process 1 was started with other settings or data than process 0 (config.seed: 0 there, 5 here)"
            in (one.err)
        )


@pytest.mark.slow
def test_what_process_0_finds_wrong_ends_all(config, undisturbed):
    ended = train(config, config.parent / "one", 2, 1, "batch_targets=64", code=2)
    for one in ended:
        assert "holds a run of another configuration (train.batch_targets: 128 there, 64 here)" in one.err


def test_a_coordinator_that_is_not_there_is_one_sentence(tmp_path):
    flags = ["--distributed.coordinator", f"localhost:{free_port()}", "--distributed.processes", "2"]
    flags += ["--distributed.process-index", "1", "--distributed.timeout", "1"]
    with launched([[str(EXPERIMENTS / "train.py"), *flags]], 1, tmp_path) as running:
        (ended,) = wait(running, tmp_path)
    assert ended.code == 2
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1, ended.err
    assert "error: process 1 did not reach the coordinator at localhost:" in ended.err
    assert "check the address, and that process 0 runs there" in ended.err


def test_others_that_do_not_come_are_one_sentence(tmp_path):
    flags = ["--distributed.coordinator", f"localhost:{free_port()}", "--distributed.processes", "2"]
    flags += ["--distributed.process-index", "0", "--distributed.timeout", "2"]
    with launched([[str(EXPERIMENTS / "train.py"), *flags]], 1, tmp_path) as running:
        (ended,) = wait(running, tmp_path)
    assert ended.code == 2
    assert "error: all 2 processes did not meet at localhost:" in ended.err
    assert len(ended.err.splitlines()) == 1, ended.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coordinator": "a:1"}, "processes, process-index are missing"),
        ({"coordinator": "a:1", "processes": 2}, "process-index is missing"),
        ({"coordinator": "a:1", "processes": 2, "process_index": 2}, "lies between 0 and 1"),
        ({"coordinator": "a:1", "processes": -1, "process_index": 0}, "at least 1, got -1"),
        ({"coordinator": "a", "processes": 2, "process_index": 0}, "is 'a'; it is the host and a port"),
        ({"coordinator": "a:b", "processes": 2, "process_index": 0}, "is 'a:b'; it is the host and a port"),
        ({"auto": True, "processes": 2}, "leave out processes"),
        ({"timeout": 0.0}, "distributed.timeout must be positive"),
    ],
)
def test_wrong_flags(changes, words):
    with pytest.raises(ValueError, match=words):
        DistributedConfig(**changes)


def test_the_shown_command_names_no_host():
    shown = experiment("training_record").train_command
    argv = ["--distributed.coordinator", "node0:7777", "--distributed.processes=2", "--seed", "1"]
    argv += ["--distributed.process-index", "0", "--distributed.auto"]
    assert shown(argv) == "python experiments/train.py --seed 1"


def test_alone_nothing_is_wanted():
    assert not DistributedConfig().wanted
    assert DistributedConfig(auto=True).wanted
    assert dataclasses.replace(DistributedConfig(), coordinator="a:1", processes=1, process_index=0).wanted


def test_a_port_in_use_is_named():
    from jaxrec.devices.distributed import initialise

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"process 0 cannot listen on port {port} .*choose another port"):
            initialise(DistributedConfig(f"localhost:{port}", 2, 0, timeout=1.0))
