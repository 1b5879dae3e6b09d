"""Runs a function in a Python process of its own, so that its memory and devices are its own."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import end_as_by_interrupt, run

EXPERIMENTS = Path(__file__).parents[1]
REPOSITORY = EXPERIMENTS.parent
FAKE_DEVICES = "--xla_force_host_platform_device_count"


def run_apart(function: str, *, fake_devices: int = 1, **arguments: Any) -> Any:
    """What ``function`` (``"package.module:name"``) returns for JSON-able ``arguments``.

    Args:
      function: is called in a new process and returns something JSON-able.
      fake_devices: that a CPU is divided into.
      **arguments: of the function.

    Raises:
      RuntimeError: the function raised an error, or the process was ended; says which.
    """
    with tempfile.TemporaryDirectory(prefix="jaxrec-benchmark-") as folder:
        answer = Path(folder) / "answer.json"
        request = {"function": function, "arguments": arguments, "answer": str(answer)}
        done = run(
            [sys.executable, "-m", "benchmarks.apart"],
            input=json.dumps(request),
            env=_environment(fake_devices),
            stdout=sys.stderr,
            stderr=subprocess.PIPE,
        )
        if not answer.exists():
            raise RuntimeError(_reason(done.returncode, done.stderr))
        reply = json.loads(answer.read_text(encoding="utf-8"))
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["result"]


def _environment(fake_devices: int) -> dict[str, str]:
    paths = [str(EXPERIMENTS), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    if fake_devices > 1:
        variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAKE_DEVICES}={fake_devices}".strip()
    return variables


def _reason(code: int, errors: str) -> str:
    lines = [line for line in errors.splitlines() if line.strip()]
    if code < 0:
        return f"the process was ended by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    return lines[-1] if lines else f"the process ended with code {code}"


def find(function: str) -> Callable[..., Any]:
    """The function of a name ``"package.module:name"``."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)


def main() -> None:
    """Answers one request from standard input."""
    end_as_by_interrupt()
    request = json.loads(sys.stdin.read())
    try:
        reply = {"result": find(request["function"])(**request["arguments"])}
    except Exception as error:  # told by the process that asked
        reply = {"error": f"{type(error).__name__}: {error}"}
    Path(request["answer"]).write_text(json.dumps(reply), encoding="utf-8")


if __name__ == "__main__":
    main()

__all__ = ["find", "run_apart"]
