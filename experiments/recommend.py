"""Lists for any number of users from a run; ``recommend.py --help`` tells how."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import polars as pl
import tyro
from console import keep_compiled_programs, make_console, run_script, say
from list_files import list_format, write_lists
from plugins import Plugins
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from run_data import AS_GIVEN

import jaxrec
from jaxrec.data.histories import known_items
from jaxrec.data.interactions import Interactions
from jaxrec.data.item_readers import read_item_ids
from jaxrec.data.source import DataConfig, kind_without_columns, read_log
from jaxrec.data.tables import open_table
from jaxrec.devices import distributed, processes
from jaxrec.devices.distributed import DistributedConfig


@dataclasses.dataclass(frozen=True)
class RecommendArguments:
    """Recommends items for the histories in a file, under your own ids: user_id, item_id, score, rank.

    It uses all devices there are, or as many as the run's configuration names.

    python experiments/recommend.py --workdir runs/mine --histories events.csv --k 10 --out recs.csv

    Attributes:
      workdir: directory of the run.
      histories: a log of events (CSV, TSV, Parquet, JSON lines, .gz), a file of sequences (*.seq.txt, .gz),
        or a folder made by prepare.py; users and items under your own ids. Users need not be those of the
        training.
      out: where the lists go: .csv, .tsv, .jsonl (each also .gz) or .parquet.
      k: length of the lists; one is shorter where fewer items are left to choose from.
      exclude_seen: whether items of the user's whole history are left out of the lists. Lists for people leave them
        out unless told otherwise, whatever the run's evaluation does.
      candidates: a file with the only items to choose from: .txt with one id a line, or any table with a
        column of items; if empty, the whole catalogue.
      candidates_id: name of the column with the item's id in that table; if empty, the training data's, or guessed.
      on_unknown: what to do with items in the histories that the model does not know: leave them out silently
        or with a warning, or stop.
      with_titles: add a column with titles.
      num_samples: for models that can draw (diffusion, V-GenAtt): how many draws are averaged for each user; 1 asks
        V-GenAtt for its mean.
      with_spread: add a column spread, the standard deviation of each score over the draws.
      user: name of the histories' column with the user's id; if empty, the training data's, or guessed.
      item: name of the histories' column with the item's id; if empty, the training data's, or guessed.
      time: name of the histories' column with the time; if empty, the training data's, or guessed; without such a
        column the file's order counts.
      batch_size: how many users are computed at once; 0 takes the run's own (evaluation.batch_size).
      portion: how many users' lists are written at once; bounds the memory taken.
      plugin: modules or .py files with classes of your own (jaxrec.register), imported first; separated by commas.
      cache: keep compiled programs in ~/.cache/jaxrec/xla ($JAXREC_CACHE/xla), so that the next time starts faster.
      debug: show the full traceback of an error.
      distributed: several processes that share the work, each started with this command.
    """

    workdir: Annotated[str, tyro.conf.arg(metavar="DIR")]
    histories: Annotated[str, tyro.conf.arg(metavar="FILE")]
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    k: int = 10
    exclude_seen: bool = True
    candidates: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    candidates_id: str = ""
    on_unknown: Literal["ignore", "warn", "raise"] = "warn"
    with_titles: bool = False
    num_samples: int = 1
    with_spread: bool = False
    user: str = ""
    item: str = ""
    time: str = ""
    batch_size: int = 0
    portion: int = 50_000
    plugin: Plugins = ""
    cache: bool = True
    debug: bool = False
    distributed: DistributedConfig = DistributedConfig()

    def __post_init__(self):
        for name in ("k", "portion", "num_samples"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1"
                )


def main(argv: list[str]) -> int:
    """Recommends and writes; returns the exit code."""
    arguments = tyro.cli(RecommendArguments, prog="python experiments/recommend.py", args=argv)
    list_format(Path(arguments.out))  # before any work
    distributed.initialise(arguments.distributed)
    if arguments.cache:
        keep_compiled_programs()
    console = make_console(quiet=distributed.process_number() > 0)
    run = jaxrec.load(arguments.workdir)
    trained_on = run.config.data or AS_GIVEN
    log = read_histories(trained_on, arguments)
    catalogue = run.catalogue.item_ids
    known_items(
        log.item_ids.values, catalogue, on_unknown=arguments.on_unknown, what="items in the histories"
    )
    candidates = None
    if arguments.candidates:
        candidates = read_candidates(Path(arguments.candidates), trained_on, arguments.candidates_id)
        known_items(candidates, catalogue, on_unknown=arguments.on_unknown, what="candidates")
    start = time.monotonic()
    lists = lists_by_portion(console, run, log, candidates, arguments)
    rows = write_lists(Path(arguments.out), lists) if processes.is_main() else sum(map(len, lists))
    seconds = time.monotonic() - start
    say(
        console,
        f"{escape(arguments.out)}: {rows:,} recommendations for {log.num_users:,} users in {seconds:.1f} s,"
        " compilation included",
    )
    return 0


def read_histories(trained_on: DataConfig, arguments: RecommendArguments) -> Interactions:
    """The log of histories; columns that no flag names are those of the training data, if the file has them."""
    there = column_names(Path(arguments.histories))
    columns = {}
    for role in ("user", "item", "time"):
        former, given = getattr(trained_on, role), getattr(arguments, role)
        if given and (kind := kind_without_columns(arguments.histories)):
            raise ValueError(
                f"--{role} {given} has no effect: {arguments.histories} is {kind}, which has no columns to name; leave"
                " it out"
            )
        columns[role] = given or (former if former in there else "")
    source = dataclasses.replace(trained_on, source=arguments.histories, items="", items_id="", **columns)
    return read_log(source)


def column_names(path: Path) -> list[str]:
    """The columns of a file of events; none of a folder, of sequences, or where there is no file."""
    sequences = path.name.removesuffix(".gz").endswith(".seq.txt")
    if sequences or not path.is_file():
        return []
    return open_table(path, None, '"', has_header=True).names


def lists_by_portion(
    console: Console,
    run: jaxrec.Run,
    log: Interactions,
    candidates: pl.Series | None,
    arguments: RecommendArguments,
) -> Iterator[pl.DataFrame]:
    """Frames of lists, for ``portion`` users each."""
    starts = range(0, log.num_users, arguments.portion)
    for start in track(
        starts, "recommending", console=console, transient=True, disable=not console.is_terminal
    ):
        yield run.recommend(
            users_between(log, start, min(start + arguments.portion, log.num_users)),
            k=arguments.k,
            exclude_seen=arguments.exclude_seen,
            candidates=candidates,
            on_unknown="ignore",  # has been dealt with, once for the whole log
            num_samples=arguments.num_samples,
            with_spread=arguments.with_spread,
            batch_size=arguments.batch_size or None,
            with_titles=arguments.with_titles,
        )


def users_between(log: Interactions, first: int, end: int) -> Interactions:
    """The part of a log with the users ``first`` to ``end - 1``."""
    offsets = log.offsets[first : end + 1]
    return dataclasses.replace(
        log,
        items=log.items[offsets[0] : offsets[-1]],
        offsets=offsets - offsets[0],
        users=log.users.take(np.arange(first, end)),
        times=None,
        metadata=None,
    )


def read_candidates(path: Path, trained_on: DataConfig, column: str = "") -> pl.Series:
    """External item ids from a text file, one a line, or from the item column of a table.

    Args:
      path: the file.
      trained_on: data of the run; a table may name its items as these did.
      column: of the ids in a table; empty for the one named as in training, or guessed.

    Raises:
      ValueError: there is none, or several columns could be meant.
      OSError: the file cannot be read.
    """
    if path.suffix != ".txt":
        there = column_names(path)
        former = next((name for name in (trained_on.items_id, trained_on.item) if name in there), "")
        return read_item_ids(path, item=column or former or None, advice="name it with --candidates-id")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError(f"{path} holds no candidates; give one item id a line")
    return pl.Series(lines, dtype=pl.String)


if __name__ == "__main__":
    run_script(main)
