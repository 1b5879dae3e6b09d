"""Running the scripts of ``experiments``: as a person does, or in this process with the same outcome."""

import importlib
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
SMALL = (
    *("--data.simulated-users", "80", "--data.simulated-items", "60"),
    *("--model.width", "8", "--model.max-length", "8", "--train.batch-targets", "256"),
)


class Outcome(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """The environment of a script: the CPU and quick compiling, as ``conftest.py`` has set them for all."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "100"}


def run_apart(script: str, *arguments: object, cwd: Path) -> Outcome:
    """Runs a script in a process of its own."""
    command = [sys.executable, str(EXPERIMENTS / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)
    return Outcome(done.returncode, done.stdout, done.stderr)


def experiment(name: str):
    """A module of ``experiments``."""
    if str(EXPERIMENTS) not in sys.path:
        sys.path.insert(0, str(EXPERIMENTS))
    return importlib.import_module(name)


def run_here(script: str, *arguments: object, capsys: pytest.CaptureFixture) -> Outcome:
    """Runs a script in this process, through the same wrapper of errors, and puts everything back."""
    module, console = experiment(script.removesuffix(".py")), experiment("console")
    log = logging.getLogger("jaxrec")
    levels = {library: logging.getLogger(library).level for library in ("absl", "asyncio", "jaxrec")}
    former_argv, former_log = sys.argv, (log.propagate, list(log.handlers))
    former_hook = sys.unraisablehook
    sys.argv = [str(EXPERIMENTS / script), *map(str, arguments)]
    capsys.readouterr()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            console.run_script(module.main)
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv, sys.unraisablehook = former_argv, former_hook
        log.propagate, log.handlers[:] = former_log
        for library, level in levels.items():
            logging.getLogger(library).setLevel(level)
    out, err = capsys.readouterr()
    return Outcome(code, out, err)


def assert_one_sentence(outcome: Outcome, *words: str, code: int = 2) -> None:
    """The command failed with one line on standard error that holds all these words."""
    assert outcome.code == code, outcome
    lines = [line for line in outcome.err.splitlines() if not line.startswith(("warning:", "note:"))]
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0], (word, lines[0])


__all__ = [
    "EXPERIMENTS",
    "ROOT",
    "SMALL",
    "Outcome",
    "assert_one_sentence",
    "environment",
    "experiment",
    "run_apart",
    "run_here",
]
