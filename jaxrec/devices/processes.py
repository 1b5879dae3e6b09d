"""What several processes that run the same program tell each other; see ``distributed.py`` for how they meet.

Every process runs the same program on its own devices; ``jax.devices()`` is then all of them. Process 0 is the
main one: it alone prints and writes files, except for arrays, which all write together (``train/checkpoint.py``).
What one process alone knows (the time, a signal, an error of the disk) must not decide what is computed, or the
others wait for it for ever; the functions here make it known to all.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrec.typing import Array

Result = TypeVar("Result")

WORD = 1024
"""Messages are padded to a multiple of this many bytes, so that few programs are compiled for them."""


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
    "Poll",
    "all_or_none",
    "check_same",
    "connect",
    "from_main",
    "gather",
    "is_main",
    "main_first",
    "on_main",
    "several",
]
