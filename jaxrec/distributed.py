"""Several processes that train one model: joining them, and what they tell each other.

Every process runs the same program on its own devices; ``jax.devices()`` is then all of them. Process 0 is the
main one: it alone prints and writes files, except for arrays, which all write together (``train/checkpoint.py``).
What one process alone knows (the time, a signal, an error of the disk) must not decide what is computed, or the
others wait for it for ever; the functions here make it known to all.
"""

import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrec.typing import Array

Result = TypeVar("Result")

_membership = "alone"  # or "joining" (also where that failed), or "joined": told to ``leave``

WORD = 1024
"""Messages are padded to a multiple of this many bytes, so that few programs are compiled for them."""


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """How this process finds the others; with the defaults it is alone.

    Attributes:
      coordinator: address ``host:port`` of process 0, which the others can reach.
      processes: how many there are.
      process_index: which of them this one is, from 0.
      auto: let jax find all that (Slurm, Open MPI, GKE and Cloud TPU pods).
      timeout: seconds to wait for the others at the start.

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


def is_main() -> bool:
    """Whether this is process 0 (or the only one), which prints and writes files."""
    return jax.process_index() == 0


def several() -> bool:
    """Whether there are other processes."""
    return jax.process_count() > 1


def gather(value: Any) -> list:
    """What each process gives, in their order; ``value`` is JSON-able. All processes call it, and wait.

    Numbers come through exactly, also those that are not finite.
    """
    if not several():
        return [value]
    message = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(message)))).ravel()
    padded = np.zeros(-(-int(lengths.max()) // WORD) * WORD, np.uint8)
    padded[: len(message)] = message
    messages = np.asarray(multihost_utils.process_allgather(padded))
    return [
        json.loads(row[:length].tobytes().decode()) for row, length in zip(messages, lengths, strict=True)
    ]


def connect(mesh: Mesh) -> None:
    """Opens the connections between the devices along the axes of a mesh; all processes call it, and wait.

    Between CPUs (gloo) all must open one within 30 s, or training ends there. Left to the first step they would
    be later than that, where one process finds its compiled programs in a cache and another does not.

    Raises:
      ValueError: a process has no device in the mesh, or more than another.
    """
    if not several():
        return
    owners = [device.process_index for device in mesh.devices.flat]
    held = [owners.count(index) for index in range(jax.process_count())]
    if len(set(held)) > 1:
        raise ValueError(
            f"parallel.devices is {mesh.size}, to which the {len(held)} processes would bring {held} devices; each must"
            " bring as many as the others: leave it 0 to take all"
        )
    gather(None)
    axes = tuple(mesh.axis_names)

    def add() -> tuple[Array, ...]:
        number = jax.lax.axis_index(axes)
        return tuple(jax.lax.psum(number, over) for over in (axes, *axes))

    whole = PartitionSpec()
    jax.block_until_ready(
        jax.jit(jax.shard_map(add, mesh=mesh, in_specs=(), out_specs=whole, check_vma=False))()
    )


def from_main(value: Any) -> Any:
    """What process 0 gives, in all processes; see ``gather``."""
    return gather(value if is_main() else None)[0]


def on_main(action: Callable[[], None]) -> None:
    """Runs ``action`` in process 0, while the others wait; what it raises is raised in all.

    Raises:
      ValueError, OSError: as the action did; of another kind of error the others get a RuntimeError.
    """
    if not several():
        action()
        return
    problem: Exception | None = None
    if is_main():
        try:
            action()
        except Exception as error:
            problem = error
    told = from_main(None if problem is None else _kind_and_words(problem))
    if problem is not None:
        raise problem
    if told is not None:
        kind, words = told
        raise {"ValueError": ValueError, "OSError": OSError}.get(kind, RuntimeError)(words)


def main_first(action: Callable[[], Result]) -> Result:
    """Does ``action`` in process 0, then in the others, which find what it left on a shared disk (a download)."""
    if not several():
        return action()
    found: list[Result] = []
    on_main(lambda: found.append(action()))
    return found[0] if is_main() else action()


def _kind_and_words(error: Exception) -> tuple[str, str]:
    kind = next((kind.__name__ for kind in (ValueError, OSError) if isinstance(error, kind)), "")
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return kind, words


def all_or_none(error: Exception | None) -> Exception | None:
    """The first process's error, in all processes; ``None`` if none has one. All processes call it."""
    if not several():
        return error
    for index, told in enumerate(gather(None if error is None else str(error)[:500])):
        if told is not None:
            return error or RuntimeError(f"process {index}: {told}")
    return None


def check_same(what: str, value: Any, differences: Callable[[Any, Any], list[str]]) -> None:
    """Compares a JSON-able value of each process with that of process 0.

    Args:
      what: its name, for the message.
      value: this process's.
      differences: from two values to lines that say how they differ, none if they do not.

    Raises:
      ValueError: in all processes, if in one it differs; says in which and how.
    """
    if not several():
        return
    found = gather(differences(from_main(value), json.loads(json.dumps(value))))
    for index, lines in enumerate(found):
        if lines:
            raise ValueError(
                f"process {index} was started with other {what} than process 0 ({'; '.join(lines)[:500]}); start all"
                " with the same"
            )


class Poll:
    """Asks all processes for small numbers, without waiting for the answer.

    The question travels as a tiny program on the devices, behind the work that is queued there; read the answer
    when that work is done. All processes ask, and read, at the same places.

    Attributes:
      shared: whether there are other processes to ask.
    """

    def __init__(self):
        self.shared = several()
        if self.shared:
            devices = np.asarray(jax.devices()).reshape(jax.process_count(), jax.local_device_count())
            mesh = Mesh(devices, ("process", "local"))
            self._sharding = NamedSharding(mesh, PartitionSpec(("process", "local")))
            self._largest = jax.jit(
                lambda numbers: jnp.max(numbers, axis=0), out_shardings=NamedSharding(mesh, PartitionSpec())
            )

    def ask(self, *numbers: int) -> Array | np.ndarray:
        """Starts to find the largest of each number over the processes; see ``read``."""
        own = np.asarray(numbers, np.int32)
        if not self.shared:
            return own
        rows = np.broadcast_to(own, (jax.local_device_count(), len(own)))
        return self._largest(jax.make_array_from_process_local_data(self._sharding, rows))

    def read(self, answer: Array | np.ndarray) -> tuple[int, ...]:
        """The largest numbers, once they are there."""
        return tuple(int(number) for number in np.asarray(answer))


__all__ = [
    "DistributedConfig",
    "Poll",
    "all_or_none",
    "check_same",
    "connect",
    "from_main",
    "gather",
    "initialise",
    "is_main",
    "joined",
    "leave",
    "main_first",
    "on_main",
    "process_number",
    "several",
]
