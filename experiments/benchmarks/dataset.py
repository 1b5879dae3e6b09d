"""The data of a benchmark as plain arrays; with polars any source, without it folders and simulated data."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxrec.data.splits import Split


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """A log split leave-one-out.

    Attributes:
      name: of the log.
      items: int32 ``[N]``.
      offsets: int64 ``[U + 1]``.
      train_ends: int64 ``[U]``, as in ``Split``.
      num_items: of the catalogue.
      split: the whole of it, where polars is installed.
    """

    name: str
    items: np.ndarray
    offsets: np.ndarray
    train_ends: np.ndarray
    num_items: int
    split: "Split | None" = None

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.offsets) - 1

    def history(self, user: int) -> np.ndarray:
        """int32, the items of a user, oldest first."""
        return np.asarray(self.items[self.offsets[user] : self.offsets[user + 1]])

    def spread_users(self, count: int) -> np.ndarray:
        """int64 ``[count]``, users spread evenly over the log (all for 0 or for more than there are).

        The first users of a log are often its oldest customers, with longer histories than most.
        """
        chosen = min(count or self.num_users, self.num_users)
        return np.arange(chosen) * self.num_users // chosen

    def item_counts(self) -> np.ndarray:
        """int64 ``[num_items + 1]`` interactions of each item (all parts: only speed is measured)."""
        return np.bincount(self.items, minlength=self.num_items + 1)

    def card(self) -> dict[str, Any]:
        """Name and sizes, for every record."""
        return {
            "data": self.name,
            "users": self.num_users,
            "items": self.num_items,
            "interactions": len(self.items),
        }


def missing(packages: tuple[str, ...]) -> list[str]:
    """Those of some packages that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def load_arrays(source: str, *, users: int, items: int) -> Arrays:
    """Reads and splits a log; see ``DataConfig`` for ``source``.

    Without polars only folders of ``prepare.py`` and ``simulated`` can be read, and nothing is filtered.

    Args:
      source: what to read.
      users: of ``simulated``.
      items: of ``simulated``.
    """
    from jaxrec.data.source import SIMULATED, DataConfig

    if not missing(("polars",)):
        from jaxrec.data import load_split

        split = load_split(DataConfig(source=source, simulated_users=users, simulated_items=items))
        log = split.interactions
        return Arrays(log.name, log.items, log.offsets, split.train_ends, log.num_items, split)
    if source == SIMULATED:
        return _simulated(users, items)
    header = Path(source) / "header.json"
    if not header.is_file():
        raise ValueError(
            f"without polars {source} cannot be read; install polars, or give a folder made by prepare.py"
        )
    facts = json.loads(header.read_text(encoding="utf-8"))
    arrays = (np.load(Path(source) / name, mmap_mode="r") for name in ("items.npy", "offsets.npy"))
    return _without_split(facts["name"], *arrays, facts["items"])


def _simulated(users: int, items: int) -> Arrays:
    from jaxrec.data.simulated_histories import draw_histories, draw_lengths
    from jaxrec.data.simulated_process import SimulatedProcess

    process = SimulatedProcess(num_items=items)
    generator = np.random.default_rng(process.seed)
    lengths = draw_lengths(process, users, generator)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return _without_split(process.name, draw_histories(process, lengths, generator), offsets, items)


def _without_split(name: str, items: np.ndarray, offsets: np.ndarray, num_items: int) -> Arrays:
    long = np.diff(offsets) >= 3
    return Arrays(name, items, offsets, offsets[1:] - 2 * long, num_items)


__all__ = ["Arrays", "load_arrays", "missing"]
