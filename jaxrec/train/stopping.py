"""Signals that ask a training to save and stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class StopRequest(threading.Event):
    """An event that a signal sets.

    Attributes:
      number: number of the signal; 0 before one comes.
    """

    number: int = 0


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """An event that SIGTERM and SIGINT set, while the block runs (in the main thread only)."""
    event = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask_to_stop(number, frame):
        if event.is_set():
            raise KeyboardInterrupt  # a second signal does not wait for the checkpoint
        event.number = number
        event.set()

    former = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


__all__ = ["StopRequest", "stop_signals"]
