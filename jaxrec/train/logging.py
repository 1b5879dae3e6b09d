"""Where the progress of training goes: a terminal, a JSON-lines file, TensorBoard."""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, Protocol

from jaxrec.files import writing
from jaxrec.metrics import SELECTION_METRIC

Record = dict[str, Any]


class Reporter(Protocol):
    """Receives what happens in training. Records are flat and JSON-able."""

    def start(self, total_epochs: int, record: Record) -> None:
        """Training begins, or goes on, at ``record["step"]``."""
        ...

    def steps(self, record: Record) -> None:
        """After each call: ``step``, ``epoch`` (a fraction), ``loss``, ``targets_per_second``, ``seconds_left``..."""
        ...

    def evaluation(self, record: Record) -> None:
        """After each evaluation: ``step``, ``epoch``, ``best``, ``selected_by`` (name of a metric) and the metrics."""
        ...

    def close(self) -> None:
        """Training is over."""
        ...


class Silent:
    """Reports nothing."""

    def start(self, total_epochs: int, record: Record) -> None: ...

    def steps(self, record: Record) -> None: ...

    def evaluation(self, record: Record) -> None: ...

    def close(self) -> None: ...


class Several:
    """Passes everything on to several reporters."""

    def __init__(self, *reporters: Reporter):
        self.reporters = reporters

    def start(self, total_epochs: int, record: Record) -> None:
        for reporter in self.reporters:
            reporter.start(total_epochs, record)

    def steps(self, record: Record) -> None:
        for reporter in self.reporters:
            reporter.steps(record)

    def evaluation(self, record: Record) -> None:
        for reporter in self.reporters:
            reporter.evaluation(record)

    def close(self) -> None:
        with contextlib.ExitStack() as stack:  # all of them, also where one cannot write its last line
            for reporter in reversed(self.reporters):
                stack.callback(reporter.close)


class JsonLines:
    """Appends one JSON object a line; on resume the lines after the restored step are dropped.

    Attributes:
      path: the file.
      every: training records are written when this many steps have passed since the last one.
    """

    def __init__(self, path: str | Path, every: int = 100):
        self.path = Path(path)
        self.every = every
        self._last_step = 0
        self._file = None

    def start(self, total_epochs: int, record: Record) -> None:
        kept = [line for line in self._whole_lines() if json.loads(line)["step"] <= record["step"]]
        self._last_step = record["step"]
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_name(self.path.name + ".partial")
            temporary.write_text("".join(kept), encoding="utf-8")
            os.replace(temporary, self.path)
            self._file = self.path.open("a", encoding="utf-8")

    def _whole_lines(self) -> list[str]:
        """Lines of the file; a last one that a kill cut short is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [line for line in lines if line.endswith("}\n")]

    def steps(self, record: Record) -> None:
        if record["step"] - self._last_step >= self.every:
            self._last_step = record["step"]
            self._write({"split": "train", **record})

    def evaluation(self, record: Record) -> None:
        self._write({"split": "validation", **record})

    def _write(self, record: Record) -> None:
        with writing(self.path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with writing(self.path):
                file.close()


class TensorBoard:
    """Scalars for TensorBoard; needs the ``tensorboard`` package (``pip install jaxrec[tensorboard]``).

    Each start writes a file of its own; on resume it tells TensorBoard to drop what an earlier file holds after the
    restored step.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self._writer = None

    def start(self, total_epochs: int, record: Record) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        with writing(self.directory):
            self._writer = EventFileWriter(str(self.directory))
        if record["step"]:
            self._add(record["step"] + 1, session_log=SessionLog(status=SessionLog.START))

    def steps(self, record: Record) -> None:
        self._write("train", record)

    def evaluation(self, record: Record) -> None:
        self._write("validation", record)

    def _write(self, split: str, record: Record) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=f"{split}/{name}", simple_value=float(value))
            for name, value in record.items()
            if name != "step" and isinstance(value, int | float)
        ]
        self._add(record["step"], summary=Summary(value=values))

    def _add(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        with writing(self.directory):
            self._writer.add_event(Event(wall_time=time.time(), step=step, **content))

    def close(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with writing(self.directory):
                writer.close()


class RichProgress:
    """A progress bar with loss, speed and time left, and a line for each evaluation; needs ``rich``.

    The loss is the mean over the calls since the last evaluation: that of one call jumps with the length of its
    histories. On something that is not a terminal the bar is left out and the lines stay.
    """

    def __init__(self, console: Any = None):
        from rich.console import Console

        self.console = console or Console()
        self._progress = None
        self._task = None
        self._resumed: Record | None = None
        self._loss_sum, self._calls = 0.0, 0  # since the last evaluation

    def start(self, total_epochs: int, record: Record) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._resumed = record if record["step"] else None
        self._progress = Progress(
            TextColumn("epoch {task.completed:.1f} of at most {task.total}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("compiling", total=total_epochs, completed=record["epoch"])
        self._progress.start()

    def steps(self, record: Record) -> None:
        if self._resumed is not None:  # a run that is complete takes no step, and does not go on
            step, epoch = self._resumed["step"], self._resumed["epoch"]
            self.console.print(f"going on from step {step:,} (epoch {epoch:.1f})", highlight=False)
            self._resumed = None
        self._loss_sum, self._calls = self._loss_sum + record["loss"], self._calls + 1
        minutes, seconds = divmod(int(record["seconds_left"]), 60)
        self._progress.update(
            self._task,
            completed=record["epoch"],
            description=f"loss {self._loss_sum / self._calls:.4f}   {record['targets_per_second']:,.0f} targets/s"
            f"   at most {minutes}:{seconds:02d} left",
        )

    def evaluation(self, record: Record) -> None:
        self._loss_sum, self._calls = 0.0, 0
        mark = "  best so far" if record["best"] else ""
        chosen = record.get("selected_by", SELECTION_METRIC)
        hits = f"hr@{chosen.partition('@')[2]}"
        shown = [
            f"{name.upper()} {record[name]:.4f}" for name in dict.fromkeys((chosen, hits)) if name in record
        ]
        self.console.print(
            f"epoch {record['epoch']:6.1f}   loss {record['loss']:.4f}"
            f"   validation {'   '.join(shown)}{mark}",
            highlight=False,
        )

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


__all__ = ["JsonLines", "Record", "Reporter", "RichProgress", "Several", "Silent", "TensorBoard"]
