"""How a program of another library's interpreter is asked and answers; needs numpy and pandas, not jaxrec."""

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

PROCESS_STATUS = Path("/proc/self/status")


@dataclasses.dataclass(frozen=True)
class Request:
    """What is measured; items and users are numbers from 1 and 0.

    Attributes:
      data: .npz with ``items`` int32 ``[N]``, ``offsets`` int64 ``[U + 1]`` and ``train_ends`` int64 ``[U]``.
      folder: for the library's own files.
      width: D.
      num_layers: transformer blocks.
      num_heads: attention heads.
      feed_forward: hidden width of the feed-forward.
      max_length: L.
      dropout_rate: in the blocks.
      batch_size: windows of a step for whole windows, prefixes for a library that trains on prefixes.
      epochs: trained.
      seconds: after which an epoch ends, between two steps; 0 for whole epochs.
      k: length of the lists.
      bulk_users: that get lists at once.
      single_users: that get lists one by one.
      recommend_batch: users of one dispatch.
      device: ``"cpu"`` or ``"cuda"``.
      dtype: ``"float32"``, or ``"bfloat16"`` for automatic mixed precision.
      source: folder of code that is no package; empty for packages.
    """

    data: str
    folder: str
    width: int
    num_layers: int
    num_heads: int
    feed_forward: int
    max_length: int
    dropout_rate: float
    batch_size: int
    epochs: int
    seconds: float
    k: int
    bulk_users: int
    single_users: int
    recommend_batch: int
    device: str
    dtype: str
    source: str


@dataclasses.dataclass(frozen=True)
class Histories:
    """The log of a request."""

    items: np.ndarray
    offsets: np.ndarray
    train_ends: np.ndarray

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.train_ends)

    def training(self) -> tuple[np.ndarray, np.ndarray]:
        """User and item of every training interaction, by user, oldest first."""
        lengths = self.train_ends - self.offsets[:-1]
        users = np.repeat(np.arange(self.num_users), lengths)
        first = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) - first[users] + self.offsets[users]
        return users, self.items[places]

    def window_targets(self, max_length: int) -> int:
        """Positions with a next item in the newest training window of each user, of at most ``max_length``."""
        lengths = self.train_ends - self.offsets[:-1]
        return int(np.minimum(np.maximum(lengths - 1, 0), max_length).sum())


def read_request() -> tuple[Request, Histories, Path]:
    """The request of standard input, its data, and where the answer goes."""
    fields = json.loads(sys.stdin.read())
    answer = Path(fields.pop("answer"))
    request = Request(**fields)
    with np.load(request.data) as arrays:
        histories = Histories(*(arrays[name] for name in ("items", "offsets", "train_ends")))
    return request, histories, answer


class Limited:
    """Batches of a loader until some seconds are over, counted; all else is the loader's.

    Attributes:
      share: of the loader's batches that the last pass gave, from 0 to 1.
    """

    def __init__(self, loader: Any, seconds: float):
        self.loader, self.seconds, self.share = loader, seconds, 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        start = time.perf_counter()
        for number, batch in enumerate(self.loader, 1):
            yield batch
            self.share = number / len(self.loader)
            if self.seconds and time.perf_counter() - start >= self.seconds:
                return

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def timed(function: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def single_times(recommend: Callable[[int], Any], users: list[int]) -> list[float]:
    """Seconds of each user, after a first one that is not counted."""
    recommend(users[0])
    return [timed(lambda user=user: recommend(user)) for user in users]


def peak_bytes() -> int:
    """The most memory that this process held."""
    if PROCESS_STATUS.exists():
        for line in PROCESS_STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_answer(
    path: Path, version: str, epochs: list[float], targets: int, share: float, **others: Any
) -> None:
    """Writes the figures.

    Args:
      path: of the JSON file.
      version: of the library.
      epochs: seconds that were spent in each.
      targets: predicted positions of a whole epoch.
      share: of its batches that an epoch had; 1 where it was not cut short.
      **others: ``bulk_seconds``, ``single_seconds``, ``peak_memory_bytes``.
    """
    answer = {
        "version": version,
        "epoch_seconds": epochs,
        "epoch_targets": targets,
        "epoch_share": share,
        **others,
    }
    path.write_text(json.dumps(answer), encoding="utf-8")
