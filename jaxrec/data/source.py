"""From the data section of a config to a split: simulated, named, or a file of your own."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # importing a config needs none of the readers
    from jaxrec.data.interactions import Interactions
    from jaxrec.data.simulated_process import SimulatedProcess
    from jaxrec.data.splits import Split

SIMULATED = "simulated"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which log, how it is filtered and how it is split.

    Attributes:
      source: ``simulated``, the name of a public data set (``movielens-1m``; ``prepare.py --list`` lists
        them), a folder made by ``prepare.py``, a file of sequences (``*.seq.txt``, ``.gz``) or a log of
        events (CSV, TSV, Parquet, JSON lines, ``.gz``).
      user: column of the user; guessed if empty.
      item: column of the item; guessed if empty.
      time: column of the time; guessed if empty, and without one the file's order counts.
      items: file with titles and categories (``item<TAB>title<TAB>categories``), if any.
      items_id: column of the item's id in that file; guessed if empty.
      min_user: users with fewer interactions are dropped, until nothing changes.
      min_item: items with fewer interactions are dropped, likewise.
      split: ``leave-one-out`` (each user's last item is the test, the one before validation) or ``temporal``
        (one global time).
      simulated_users: of ``simulated``.
      simulated_items: of ``simulated``.
    """

    source: str = SIMULATED
    user: str = ""
    item: str = ""
    time: str = ""
    items: str = ""
    items_id: str = ""
    min_user: int = 5
    min_item: int = 5
    split: Literal["leave-one-out", "temporal"] = "leave-one-out"
    simulated_users: int = 4000
    simulated_items: int = 1000


Progress = Callable[[int, int | None], None]


def simulated_process(config: DataConfig) -> "SimulatedProcess":
    """The process that ``simulated`` is drawn from; ``oracle_score`` tells the best reachable on it."""
    from jaxrec.data.simulated_process import SimulatedProcess

    return SimulatedProcess(num_items=config.simulated_items)


def read_log(config: DataConfig, *, progress: Progress | None = None) -> "Interactions":
    """The log of a config, unfiltered.

    Args:
      config: its ``source`` decides.
      progress: told of bytes done and bytes in all while something is downloaded.
    """
    from jaxrec import data

    path = Path(config.source).expanduser()
    if config.source == SIMULATED:
        from jaxrec.data.simulator import sample

        log = sample(simulated_process(config), config.simulated_users)
    elif path.is_dir():
        log = data.Interactions.open(path)
    elif config.source in data.available():
        log = data.load(config.source, progress=progress)
    elif path.name.removesuffix(".gz").endswith(".seq.txt"):
        log = data.read_sequences(path)
    elif not path.exists() and not path.suffix:
        from jaxrec.data.catalog import unknown_name

        raise ValueError(f"there is no file {config.source!r}, and {unknown_name(config.source)}")
    else:
        log = data.read_interactions(
            path, user=config.user or None, item=config.item or None, time=config.time or None
        )
    if not config.items:
        return log
    return log.with_metadata(data.read_items(config.items, item=config.items_id or None))


def load_split(config: DataConfig, *, progress: Progress | None = None) -> "Split":
    """The filtered and split log of a config."""
    from jaxrec import data

    log = read_log(config, progress=progress)
    if config.min_user > 1 or config.min_item > 1:
        log = log.filter(min_user=config.min_user, min_item=config.min_item)
    return data.leave_one_out(log) if config.split == "leave-one-out" else data.temporal(log)


__all__ = ["SIMULATED", "DataConfig", "load_split", "read_log", "simulated_process"]
