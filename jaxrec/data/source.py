"""From the data section of a config to a split: simulated, named, or a file of your own."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxrec.data.moments import as_number, check_fractions, parse_moment

if TYPE_CHECKING:  # importing a config needs none of the readers
    from jaxrec.data.interactions import Interactions
    from jaxrec.data.simulated_process import SimulatedProcess
    from jaxrec.data.splits import Split

SIMULATED = "simulated"
COLUMNS = ("user", "item", "time")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which log, how it is filtered and how it is split.

    Attributes:
      source: ``simulated``, the name of a public data set (``movielens-1m``; ``prepare.py --list`` lists
        them), a folder made by ``prepare.py``, a file of sequences (``*.seq.txt``, ``.gz``) or a log of
        events (CSV, TSV, Parquet, JSON lines, ``.gz``).
      user: column of the user's id in a log of events; guessed if empty.
      item: column of the item's id in a log of events; guessed if empty.
      time: column of the time in a log of events; guessed if empty, and without one the file's order counts.
      items: file with titles and categories (``item<TAB>title<TAB>categories``); none if empty.
      items_id: column of the item's id in that file; guessed if empty.
      min_user: users with fewer interactions are dropped, in turn with ``min_item`` until nothing drops; 1 keeps all.
      min_item: items with fewer interactions are dropped, in turn with ``min_user`` until nothing drops; 1 keeps all.
      split: ``leave-one-out`` (each user's last item is the test, the one before validation) or ``temporal``
        (one global clock: what happened before ``validation_time`` trains, from ``test_time`` on tests).
      validation_time: for the ``temporal`` split: when validation begins, a number in the unit of the log's times, or
        a date (``2024-05-31``, UTC) where these are seconds since 1970; taken from ``fractions`` if empty.
      test_time: for the ``temporal`` split: when the test begins, written as ``validation_time``; taken from
        ``fractions`` if empty.
      fractions: for the ``temporal`` split: shares of all interactions that train, validate and test, where a time is
        not given.
      targets: for the ``temporal`` split: which of a user's interactions in the validation and in the test span are
        predicted.
      simulated_users: how many users the ``simulated`` log has, before ``min_user``.
      simulated_items: how many items the ``simulated`` catalogue has, before ``min_item``.
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
    validation_time: str = ""
    test_time: str = ""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    targets: Literal["first", "last", "all"] = "last"
    simulated_users: int = 4000
    simulated_items: int = 1000

    def __post_init__(self):
        check_fractions(self.fractions)
        for name in ("validation_time", "test_time", "fractions", "targets"):
            given = getattr(self, name)
            if self.split != "temporal" and given != getattr(DataConfig, name):
                raise ValueError(
                    f"data.{name} is {given!r} and has no effect on the split {self.split};"
                    " set data.split to temporal, or leave it out"
                )
        moments = parse_moment(self.validation_time), parse_moment(self.test_time)
        numbers = [as_number(moment) for moment in moments if moment is not None]
        if len(numbers) == 2 and not numbers[0] < numbers[1]:
            raise ValueError(
                f"data.validation_time {self.validation_time} must come before data.test_time {self.test_time}"
            )


Progress = Callable[[int, int | None], None]


def simulated_process(config: DataConfig) -> "SimulatedProcess":
    """The process that ``simulated`` is drawn from; ``oracle_score`` tells the best reachable on it."""
    from jaxrec.data.simulated_process import SimulatedProcess

    return SimulatedProcess(num_items=config.simulated_items)


def kind_without_columns(source: str) -> str:
    """What a source is, in words, where it has no columns that could be named; empty for a log of events."""
    from jaxrec import data

    path = Path(source).expanduser()
    if source == SIMULATED:
        return "simulated data"
    if path.is_dir():
        return "a prepared folder"
    if source in data.available():
        return "a public data set"
    return "a file of sequences" if _holds_sequences(path) else ""


def _holds_sequences(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".seq.txt")


def _check_columns(config: DataConfig) -> None:
    """Raises ValueError for a column that is named, but would not be read."""
    for name in COLUMNS:
        if getattr(config, name) and (kind := kind_without_columns(config.source)):
            raise ValueError(
                f"data.{name} is {getattr(config, name)!r} and has no effect: {config.source} is {kind}, which has no"
                " columns to name; leave it out"
            )
    if config.items_id and not config.items:
        raise ValueError(
            f"data.items_id is {config.items_id!r} and has no effect without data.items; give that file, or leave it"
            " out"
        )


def moved(config: DataConfig, source: str = "") -> DataConfig:
    """The data of a run where it is now, without the names of columns that would not be read there.

    Args:
      config: of the training.
      source: the new place; empty for the former one.
    """
    source = source or config.source
    unread = COLUMNS if kind_without_columns(source) else ()
    unread += () if config.items else ("items_id",)
    return dataclasses.replace(config, source=source, **dict.fromkeys(unread, ""))


def read_log(config: DataConfig, *, progress: Progress | None = None) -> "Interactions":
    """The log of a config, unfiltered.

    Args:
      config: its ``source`` decides.
      progress: told of bytes done and bytes in all while something is downloaded.

    Raises:
      ValueError: there is no such data, it cannot be read, or a column is named that would not be read.
      OSError: a file cannot be read.
    """
    from jaxrec import data

    _check_columns(config)
    path = Path(config.source).expanduser()
    if config.source == SIMULATED:
        from jaxrec.data.simulator import sample

        log = sample(simulated_process(config), config.simulated_users)
    elif path.is_dir():
        log = data.Interactions.open(path)
    elif config.source in data.available():
        log = data.load(config.source, progress=progress)
    elif _holds_sequences(path):
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
    """The filtered and split log of a config, which the split remembers (``Split.loaded_from``).

    A note is logged of what the filter left out, if anything.
    """
    return _split_log(config, progress).as_loaded_from(config)


def _split_log(config: DataConfig, progress: Progress | None) -> "Split":
    from jaxrec import data

    log = read_log(config, progress=progress)
    if config.min_user > 1 or config.min_item > 1:
        whole, log = log, log.filter(min_user=config.min_user, min_item=config.min_item)
        if (kept := _kept(whole, log)) is not None:
            logger.info("%s: %s (min_user %d, min_item %d)", log.name, kept, config.min_user, config.min_item)
    if config.split == "leave-one-out":
        return data.leave_one_out(log)
    return data.temporal(
        log,
        validation_time=parse_moment(config.validation_time),
        test_time=parse_moment(config.test_time),
        fractions=config.fractions,
        targets=config.targets,
    )


def _kept(whole: "Interactions", log: "Interactions") -> str | None:
    """What a filter has kept, in words; ``None`` if that is everything."""
    counts = {
        name: (getattr(log, f"num_{name}"), getattr(whole, f"num_{name}"))
        for name in ("users", "items", "interactions")
    }
    if all(kept == there for kept, there in counts.values()):
        return None
    users, items, interactions = (f"{kept:,} of {there:,} {name}" for name, (kept, there) in counts.items())
    return f"kept {users}, {items} and {interactions}"


__all__ = [
    "SIMULATED",
    "DataConfig",
    "kind_without_columns",
    "load_split",
    "moved",
    "read_log",
    "simulated_process",
]
