"""Processes that are started for a measurement, and end with the one that started them."""

import signal
import subprocess
from typing import Any

PATIENCE = 10.0
"""Seconds that a process has for ending those that it started itself."""


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess:
    """``subprocess.run`` of text; the process is asked to end, and then made to, where this one is interrupted."""
    text = options.pop("input", None)
    if text is not None:
        options["stdin"] = subprocess.PIPE
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            out, errors = process.communicate(text)
        except BaseException:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def end_as_by_interrupt() -> None:
    """Lets SIGTERM end this process as Ctrl-C does, so that ``run`` ends what it waits for."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


__all__ = ["end_as_by_interrupt", "run"]
