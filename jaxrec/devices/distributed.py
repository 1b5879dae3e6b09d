"""Joining several processes that train one model, and leaving them.

What they tell each other once they have met is in ``processes.py``.
"""

import contextlib
import dataclasses
import os
import socket
import sys
import threading
import time
from typing import Any, NoReturn

import jax

from jaxrec.devices.processes import gather

_membership = "alone"  # or "joining" (also where that failed), or "joined": told to ``leave``


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """How this process finds the others; with the defaults it is alone.

    Attributes:
      coordinator: address of process 0, HOST:PORT, which the others can reach; empty: this process is alone.
      processes: how many processes there are; 0: this process is alone.
      process_index: which of the processes this one is, from 0; -1: this process is alone.
      auto: let jax find coordinator, processes and process_index (Slurm, Open MPI, GKE and Cloud TPU pods).
      timeout: seconds to wait for the other processes at the start.

    Raises:
      ValueError: one part is missing, or out of range.
    """

    coordinator: str = ""
    processes: int = 0
    process_index: int = -1
    auto: bool = False
    timeout: float = 300.0

    def __post_init__(self):
        given = {
            "coordinator": self.coordinator != "",
            "processes": self.processes != 0,
            "process-index": self.process_index != -1,
        }
        if self.timeout <= 0:
            raise ValueError(f"distributed.timeout must be positive, got {self.timeout}")
        if self.auto:
            if any(given.values()):
                names = ", ".join(name for name, there in given.items() if there)
                raise ValueError(f"distributed.auto finds everything by itself; leave out {names}")
            return
        if not any(given.values()):
            return
        missing = [name for name, there in given.items() if not there]
        if missing:
            raise ValueError(
                f"several processes need distributed.coordinator, processes and process-index;"
                f" {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
            )
        if self.processes < 1:
            raise ValueError(f"distributed.processes must be at least 1, got {self.processes}")
        if not 0 <= self.process_index < self.processes:
            raise ValueError(
                f"distributed.process-index is {self.process_index}; with {self.processes} processes it lies between 0"
                f" and {self.processes - 1}"
            )
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(
                f"distributed.coordinator is {self.coordinator!r}; it is the host and a port of process 0, such as"
                " node0:7777"
            )

    @property
    def wanted(self) -> bool:
        """Whether there are other processes to be found."""
        return self.auto or self.coordinator != ""


def initialise(config: DistributedConfig) -> None:
    """Joins the other processes. Call it before any work on devices; alone it does nothing.

    Raises:
      OSError: the others were not reached in time, or the address cannot be used; says which.
      ValueError: jax finds no cluster around this process.
      RuntimeError: a device has been used already.
    """
    global _membership
    if not config.wanted:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # The training loop answers signals itself; jax's own handler would swallow those that come before it.
    jax.config.update("jax_enable_preemption_service", False)
    end = time.monotonic() + config.timeout
    settings: dict[str, Any] = {}
    if not config.auto:
        settings = {
            "coordinator_address": config.coordinator,
            "num_processes": config.processes,
            "process_id": config.process_index,
            "cluster_detection_method": "deactivate",
        }
        if config.process_index == 0:
            _check_free(config.coordinator)
        else:
            _wait_for(config.coordinator, config.process_index, end)
    errors: list[Exception] = []

    def join() -> None:
        try:
            jax.distributed.initialize(**settings, initialization_timeout=24 * 3600)
        except Exception as error:
            errors.append(error)

    # At its own time-out jax ends the whole process; waiting in a thread leaves room for a sentence.
    _membership = "joining"
    thread = threading.Thread(target=join, name="jaxrec-join", daemon=True)
    thread.start()
    thread.join(max(end - time.monotonic(), 0.0))
    if thread.is_alive():
        where = config.coordinator or "the coordinator that jax has found"
        count = f"all {config.processes} processes" if config.processes else "all processes"
        raise TimeoutError(
            f"{count} did not meet at {where} within {config.timeout:g} s; check that each was started, with the same"
            " address and another process-index"
        )
    if errors:
        error = errors[0]
        if config.auto and isinstance(error, ValueError):
            raise ValueError(
                "distributed.auto finds no cluster here (Slurm, Open MPI, GKE, Cloud TPU); give"
                f" distributed.coordinator, processes and process-index instead ({error})"
            ) from error
        raise error
    _membership = "joined"
    gather(None)  # opens the connections that messages take, see connect


def joined() -> bool:
    """Whether ``initialise`` has brought this process together with others. Touches no device."""
    return _membership == "joined"


def process_number() -> int:
    """The number of this process as far as ``initialise`` knows it, else 0. Touches no device before that."""
    return jax.process_index() if joined() else 0


def _check_free(address: str) -> None:
    """Raises if process 0 cannot listen on the port of the address."""
    port = int(address.rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise OSError(
                error.errno, f"process 0 cannot listen on port {port} ({error.strerror}); choose another port"
            ) from error


def _wait_for(address: str, index: int, end: float) -> None:
    """Waits until something listens at an address; raises at ``end`` (of ``time.monotonic``)."""
    host, _, port = address.rpartition(":")
    start = time.monotonic()
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"process {index} did not reach the coordinator at {address} within {end - start:.0f} s ({error});"
                    " check the address, and that process 0 runs there"
                ) from error
        time.sleep(0.2)


def leave(code: int, *, seconds: float = 10.0) -> NoReturn:
    """Ends this process with an exit code, together with the others if they end too.

    Leaving in the ordinary way, a process that fails alone would wait for minutes for the others, which wait for
    it. Here it waits ``seconds`` for them, and goes; they then find the connection closed. If it is process 0 that
    goes, jax ends the others with a message of its own and SIGABRT.
    """
    if _membership == "alone":
        raise SystemExit(code)
    together = threading.Event()

    def part() -> None:
        with contextlib.suppress(Exception):
            jax.distributed.shutdown()
            together.set()

    if _membership == "joined":
        threading.Thread(target=part, name="jaxrec-leave", daemon=True).start()
        together.wait(seconds)
    if together.is_set():
        raise SystemExit(code)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


__all__ = ["DistributedConfig", "initialise", "joined", "leave", "process_number"]
