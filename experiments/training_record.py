"""``training.json``: what made a run, written when its training begins and completed when it has ended."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from commands import shown_command

import jaxrec
from jaxrec import artifact
from jaxrec.train.logging import Record, Silent

TRAINING = "training.json"
PROGRAM = "python experiments/train.py"
OWN_FLAGS = (
    "--workdir",
    *(f"--distributed.{name}" for name in ("coordinator", "processes", "process-index", "timeout")),
)


class TrainingRecord(Silent):
    """Keeps preset and command of a run in its directory, for the results that cite it.

    A run that goes on, or is looked at, by its directory keeps the preset and the command of its beginning; flags
    given then are added to it.

    Attributes:
      made_by: ``preset`` and ``command``.
      calls: of the training step; 0 at the end means that there was nothing left to do.
    """

    def __init__(self, workdir: Path, preset: str, argv: list[str]):
        """Reads what is there; nothing is written before the training has begun."""
        self._path, self.calls = workdir / TRAINING, 0
        self.made_by = {"preset": preset or "model", "command": train_command(argv)}
        if not preset and self._path.exists():
            former = json.loads(self._path.read_text(encoding="utf-8"))
            command = merged_command(former["command"], self.made_by["command"])
            self.made_by = {"preset": former["preset"], "command": command}

    @property
    def preset(self) -> str:
        """The preset's name."""
        return self.made_by["preset"]

    def start(self, total_epochs: int, record: Record) -> None:
        self._write({})

    def steps(self, record: Record) -> None:
        self.calls += 1

    def finish(self, run: jaxrec.Run) -> None:
        """Adds how long it took, and on what; that of a run that was complete already stays."""
        there = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
        if not self.calls and "seconds" in there:
            return
        self._write(
            {
                "seconds": round(run.training_seconds, 1),
                "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.params)),
                "device": jax.devices()[0].device_kind,
                "devices": jax.device_count(),
                "processes": jax.process_count(),
                "cores": os.cpu_count(),
            }
        )

    def _write(self, facts: dict[str, Any]) -> None:
        with artifact.writing(self._path.parent):
            artifact.write_json(self._path, {**self.made_by, **facts})


def train_command(argv: Sequence[str]) -> str:
    """The command without what is this machine's own: the run's directory, the folders of files, other processes."""
    argv = [word for word in argv if word != "--distributed.auto"]
    return shown_command(PROGRAM, argv, without=OWN_FLAGS)


def merged_command(former: str, command: str) -> str:
    """``former`` with the flags of ``command``: new ones behind, others in the place of their former value."""
    groups: dict[str, list[str]] = {}
    for text in (former, command):
        given: dict[str, list[str]] = {}
        name = ""
        for word in shlex.split(text.removeprefix(PROGRAM)):
            if word.startswith("--"):
                name = word.partition("=")[0].replace(".no-", ".").replace("--no-", "--")
                given[name] = []
            given.setdefault(name, []).append(word)
        groups |= given
    words = [word for group in groups.values() for word in group]
    return f"{PROGRAM} {shlex.join(words)}".strip()


__all__ = ["TrainingRecord", "merged_command", "train_command"]
