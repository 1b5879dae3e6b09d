"""Where the input of each call comes from: the Grain pipeline, or the log in device memory."""

from typing import Any, Literal, Protocol

import jax
import numpy as np

from jaxrec.batch import SequenceBatch
from jaxrec.data.on_device import DeviceCall, DeviceLog, fits_on_device
from jaxrec.data.pipeline import CallIterator, CallSource
from jaxrec.data.windows import WindowPlan
from jaxrec.devices import processes
from jaxrec.train.parallel import Placement

Source = Literal["auto", "grain", "device"]


class Feed(Protocol):
    """An endless stream of inputs for the compiled step, that can be put at any call.

    Attributes:
      checkpointable: the Grain iterator whose state is saved, or ``None`` where the call's number is all.
      on_device: whether inputs are ``DeviceCall`` (else batches).
    """

    checkpointable: Any
    on_device: bool

    def __next__(self) -> SequenceBatch | DeviceCall: ...

    def seek(self, call: int) -> None:
        """Goes to a call by its number."""
        ...

    def close(self) -> None:
        """Frees threads."""
        ...


class GrainFeed:
    """Batches from the Grain pipeline, put on the devices; each process reads its slice."""

    on_device = False

    def __init__(self, items: np.ndarray, plan: WindowPlan, placement: Placement):
        self._placement = placement
        self._calls = CallIterator(CallSource(items, plan, jax.process_index(), jax.process_count()))
        self.checkpointable = self._calls.grain_iterator

    def __next__(self) -> SequenceBatch:
        return self._placement.put_batches(next(self._calls))

    def seek(self, call: int) -> None:
        if self._calls.next_call != call:
            self._calls.seek(call)

    def close(self) -> None:
        self._calls.close()


class DeviceFeed:
    """Calls whose windows the device cuts itself."""

    on_device = True
    checkpointable = None

    def __init__(self, items: np.ndarray, plan: WindowPlan, placement: Placement):
        self._log = DeviceLog(items, plan, placement.replicated)
        self._next = 0

    def __next__(self) -> DeviceCall:
        call = self._log.call(self._next)
        self._next += 1
        return call

    def seek(self, call: int) -> None:
        self._next = call

    def close(self) -> None: ...


def make_feed(source: Source, items: np.ndarray, plan: WindowPlan, placement: Placement) -> Feed:
    """The feed asked for; ``"auto"`` keeps the log on an accelerator where it fits, and takes Grain elsewhere.

    Raises:
      ValueError: ``pmap`` is asked for in several processes.
    """
    if processes.several() and placement.config.mode == "pmap":
        raise ValueError("parallel.mode=pmap trains in one process; take mode=jit for several")
    if source == "device" or (source == "auto" and fits_on_device(len(items), plan)):
        return DeviceFeed(items, plan, placement)
    return GrainFeed(items, plan, placement)


__all__ = ["DeviceFeed", "Feed", "GrainFeed", "Source", "make_feed"]
