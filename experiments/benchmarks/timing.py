"""Wall and processor time of a function, repeated; and the memory that a process took."""

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PROCESS_STATUS = Path("/proc/self/status")


class Times(NamedTuple):
    """Seconds of each repeat.

    Attributes:
      wall: by the clock.
      processor: of all threads of this process, so that another program's load shows as the difference.
      warmups: runs before, that are not counted.
    """

    wall: list[float]
    processor: list[float]
    warmups: int

    @property
    def median(self) -> float:
        """Wall seconds."""
        return float(np.median(self.wall))

    def percentile(self, share: float) -> float:
        """Wall seconds that ``share`` per cent of the repeats stayed below."""
        return float(np.percentile(self.wall, share))

    def record(self) -> dict[str, Any]:
        """How it was timed: repeats, warm-up, median and spread."""
        return {
            "warmups": self.warmups,
            "repeats": len(self.wall),
            "median_seconds": self.median,
            "lowest_seconds": min(self.wall),
            "highest_seconds": max(self.wall),
            "median_processor_seconds": float(np.median(self.processor)),
        }


def repeat(
    function: Callable[[], Any], *, repeats: int, warmups: int = 1, budget_seconds: float = 60.0
) -> Times:
    """Times ``function``, which must return only when its work is done.

    Args:
      function: what is timed.
      repeats: at most; fewer where the budget is spent, but always one.
      warmups: runs before.
      budget_seconds: wall time after which no further repeat begins.
    """
    for _ in range(warmups):
        function()
    wall, processor = [], []
    end = time.perf_counter() + budget_seconds
    while len(wall) < repeats and (not wall or time.perf_counter() < end):
        wall_start, processor_start = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - wall_start)
        processor.append(time.process_time() - processor_start)
    return Times(wall, processor, warmups)


def peak_resident_bytes() -> int:
    """The most memory that this process held.

    Linux's own count where there is one: ``getrusage`` starts from what the parent process held.
    """
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes() -> int | None:
    """Memory that this process holds now; ``None`` where the system does not tell."""
    return _status("VmRSS")


def _status(name: str) -> int | None:
    if not PROCESS_STATUS.exists():
        return None
    lines = [line for line in PROCESS_STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(lines[0].split()[1]) * 1024 if lines else None


__all__ = ["Times", "peak_resident_bytes", "repeat", "resident_bytes"]
