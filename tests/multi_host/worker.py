"""Run by test_multi_host.py, once for each process: trains what a config file says, as ``train.py`` does.

``worker.py CONFIG WORKDIR [COORDINATOR PROCESSES INDEX] [name=value ...]``. Process 0 prints the step of each call, and
writes loss and gradient norm of each to ``WORKDIR.json``. ``pause=S`` waits S seconds after each call; other names are
fields of the train, optimizer or parallel section, or the seed. The run is evaluated on the test part at its end.
The folder ``experiments`` must be in PYTHONPATH.
"""

import dataclasses
import json
import time
from pathlib import Path

from console import run_script

import jaxrec
from jaxrec.config import Config, read_config
from jaxrec.data.source import load_split
from jaxrec.devices import distributed, processes
from jaxrec.devices.distributed import DistributedConfig
from jaxrec.train.logging import Record, Silent


class Course(Silent):
    """Keeps what each call reports, prints its step, and may pause."""

    def __init__(self, pause: float):
        self.pause = pause
        self.calls: dict[int, tuple[float, float]] = {}

    def steps(self, record: Record) -> None:
        self.calls[record["step"]] = record["loss"], record["grad_norm"]
        print("step", record["step"], flush=True)
        time.sleep(self.pause)


def changed(config: Config, changes: dict[str, str]) -> Config:
    """The config with some fields of its train, optimizer and parallel sections, or the seed, replaced."""
    for name, value in changes.items():
        if name == "seed":
            config = dataclasses.replace(config, seed=int(value))
            continue
        part, section = next(
            (part, section)
            for section in ("train", "optimizer", "parallel")
            if hasattr(part := getattr(config, section), name)
        )
        part = dataclasses.replace(part, **{name: type(getattr(part, name))(value)})
        config = dataclasses.replace(config, **{section: part})
    return config


def main(argv: list[str]) -> int:
    config_file, workdir, *rest = argv
    changes = dict(word.split("=") for word in rest if "=" in word)
    others = [word for word in rest if "=" not in word]
    if others:
        coordinator, count, index = others
        distributed.initialise(DistributedConfig(coordinator, int(count), int(index), timeout=60.0))
    course = Course(float(changes.pop("pause", 0.0)))
    config = changed(read_config(config_file), changes)
    run = jaxrec.fit(config, load_split(config.data), workdir, reporter=course)
    if run.interrupted:
        return 128 + run.interrupted
    run.evaluate("test")
    if processes.is_main():
        Path(f"{workdir}.json").write_text(json.dumps(course.calls))
    return 0


if __name__ == "__main__":
    run_script(main)
