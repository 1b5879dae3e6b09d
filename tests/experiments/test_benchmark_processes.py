"""Processes of a benchmark end with the one that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from command_line import EXPERIMENTS, ROOT, environment

SLEEPER = (
    "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
)
STARTER = """
import sys
from benchmarks.apart import run_apart
from benchmarks.processes import end_as_by_interrupt

end_as_by_interrupt()
run_apart("benchmarks.processes:run", command=[sys.executable, "-c", *sys.argv[1:]])
"""


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_signal_ends_all_of_them(tmp_path):
    """The process asked, the one that measures, and the one that it started in turn."""
    number = tmp_path / "number"
    paths = {**environment(), "PYTHONPATH": os.pathsep.join(map(str, (EXPERIMENTS, ROOT)))}
    command = [sys.executable, "-c", STARTER, SLEEPER, str(number)]
    with subprocess.Popen(command, env=paths, stderr=subprocess.DEVNULL) as starter:
        wait_for(lambda: number.exists() and number.read_text())
        starter.send_signal(signal.SIGTERM)
        assert starter.wait(30) != 0
    wait_for(lambda: not lives(int(number.read_text())))
