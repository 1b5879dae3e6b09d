"""Turns any log into a folder that opens at once; ``prepare.py --help`` tells how."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro
from console import DownloadBar, make_console, run_script, say, script_path
from rich.console import Console
from rich.markup import escape
from tables import make_table

from jaxrec import data
from jaxrec.data.catalog import unknown_name
from jaxrec.data.interactions import Interactions
from jaxrec.data.storage import check_replaceable

Format = Literal["auto", "events", "sequences", "movielens", "amazon"]
COLUMN_FLAGS = ("user", "item", "time", "rating")
NEEDED = "(needed, except with --list)"
CHOICE_FLAGS = ("min_rating", "duplicates")
READING_FLAGS = ("header", "separator", "quote", "time_format", "missing")


@dataclasses.dataclass(frozen=True)
class PrepareArguments:
    """Reads a log of any size and kind, filters it if asked, and saves it as memory-mapped arrays.

    The folder opens at once whatever its size: give it to train.py or recommend.py as --data or --histories.

    python experiments/prepare.py --data events-2023.parquet events-2024.parquet --out data/mine --min-user 5

    Attributes:
      data: a name of public data (movielens-1m; it is downloaded), or files (patterns too), read as one log.
      out: the folder to write; a log prepared there before is replaced.
      list: only list the public data sets, with their terms.
      format: events (one interaction a row: CSV, TSV, Parquet, JSON lines, .gz), sequences (user<TAB>item
        item item), movielens or amazon (the publishers' files); auto tells the first two apart by the name.
      user: column with the user's id, by name, or with --no-header by place (0 is the first); guessed if empty.
      item: column with the item's id, by name or place as --user; guessed if empty.
      time: column with the time, by name or place as --user; guessed if empty, and without such a column the file's
        order counts.
      header: whether the first line of a text file names the columns; with --no-header give --user 0 --item 1
        and, if there are, --time and --rating.
      separator: character between the fields of a text file (\\t is a tab); found in its first line if empty.
      quote: character around fields that hold a separator, or none if quotes are ordinary text; if empty, the double
        quote, but where neither commas nor semicolons separate and some quote has no partner.
      time_format: how dates are written, such as %d.%m.%Y; if empty, numbers and ISO dates are understood.
      missing: what to do with rows without a user or an item: drop them, or stop with an error.
      min_rating: interactions rated lower are left out, in files with ratings; None keeps all.
      rating: column with the rating, by name or place as --user; guessed if empty.
      duplicates: what to do with repeated interactions of a user with an item: keep all, with a warning (warn) or
        without (keep), or only the first or the last of them.
      items: file with titles and categories (item<TAB>title<TAB>categories); none if empty.
      items_id: name of the column with the item's id in that file; guessed if empty.
      min_user: users with fewer interactions are dropped (1 keeps all); repeated, in turn with --min-item, until
        nothing more drops.
      min_item: items with fewer interactions are dropped (1 keeps all); repeated, in turn with --min-user, until
        nothing more drops.
      name: what the log is called in results; the file's name if empty.
      debug: show the full traceback of an error.
    """

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME_OR_FILES", help_behavior_hint=NEEDED)] = ()
    out: Annotated[str, tyro.conf.arg(metavar="DIR", help_behavior_hint=NEEDED)] = ""
    list: bool = False
    format: Format = "auto"
    user: str = ""
    item: str = ""
    time: str = ""
    header: bool = True
    separator: str = ""
    quote: str = ""
    time_format: str = ""
    missing: Literal["error", "drop"] = "error"
    min_rating: float | None = None
    rating: str = ""
    duplicates: Literal["warn", "keep", "first", "last"] = "warn"
    items: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    items_id: str = ""
    min_user: int = 1
    min_item: int = 1
    name: str = ""
    debug: bool = False

    def __post_init__(self):
        if not self.list and not (self.data and self.out):
            raise ValueError(
                "--data (a public data set's name, or one file or more) and --out (a folder) are needed"
            )


def main(argv: list[str]) -> int:
    """Reads, filters and saves; returns the exit code."""
    arguments = tyro.cli(PrepareArguments, prog="python experiments/prepare.py", args=argv)
    console = make_console()
    if arguments.list:
        list_public_data(console)
        return 0
    check_replaceable(arguments.out)  # before any work
    log = read(arguments, console)
    if arguments.items:
        log = log.with_metadata(data.read_items(arguments.items, item=arguments.items_id or None))
    if arguments.min_user > 1 or arguments.min_item > 1:
        log = log.filter(min_user=arguments.min_user, min_item=arguments.min_item)
    if arguments.name:
        log = dataclasses.replace(log, name=arguments.name)
    log.save(arguments.out)
    print_summary(console, log)
    say(console, f"\nsaved in {escape(arguments.out)}; next you may type")
    say(console, f"  python {escape(script_path('train.py'))} --data {escape(arguments.out)}")
    return 0


def list_public_data(console: Console) -> None:
    """Names, one-line descriptions and terms of the public data sets."""
    for entry in data.available().values():
        say(console, f"[bold]{entry.name}[/]  {escape(entry.description)}  [dim]{escape(entry.terms)}[/]")


def refuse(arguments: PrepareArguments, names: tuple[str, ...], kind: str) -> None:
    """Refuses flags that have no effect on a kind of data.

    Raises:
      ValueError: one of them is given.
    """
    for field in dataclasses.fields(PrepareArguments):
        if field.name in names and getattr(arguments, field.name) != field.default:
            flag = f"--{'no-' if field.default is True else ''}{field.name.replace('_', '-')}"
            raise ValueError(f"{flag} has no effect on {kind}; leave it out, or prepare the file itself")


def read(arguments: PrepareArguments, console: Console) -> Interactions:
    """The log, unfiltered.

    Raises:
      ValueError: a flag has no effect on this kind of data, or the data is wrong.
    """
    first = arguments.data[0]
    if arguments.format == "auto" and len(arguments.data) == 1 and not Path(first).exists():
        if first in data.available():
            refuse(arguments, (*COLUMN_FLAGS, *READING_FLAGS, *CHOICE_FLAGS), f"the public data set {first}")
            with DownloadBar(console, first) as bar:
                return data.load(first, progress=bar)
        if not Path(first).suffix:
            raise ValueError(f"there is no file {first!r}, and {unknown_name(first)}")
    paths = list(arguments.data)
    kind = arguments.format
    if kind == "auto":
        kind = "sequences" if first.removesuffix(".gz").endswith(".seq.txt") else "events"
    if kind == "sequences":
        refuse(arguments, (*COLUMN_FLAGS, *READING_FLAGS, *CHOICE_FLAGS), "files of sequences")
        return data.read_sequences(paths)
    if kind in ("movielens", "amazon"):
        refuse(
            arguments, (*COLUMN_FLAGS, *READING_FLAGS), f"files of the format {kind}, whose columns are known"
        )
        if len(paths) > 1:
            raise ValueError(
                f"--format {kind} reads one file, and there are {len(paths)}: {', '.join(paths)}"
            )
        read_format = data.read_movielens if kind == "movielens" else data.read_amazon
        return read_format(first, min_rating=arguments.min_rating, duplicates=arguments.duplicates)
    return data.read_interactions(
        paths,
        **{role: column(arguments, role) for role in COLUMN_FLAGS},
        min_rating=arguments.min_rating,
        separator=arguments.separator.replace("\\t", "\t") or None,
        has_header=arguments.header,
        quote=None if arguments.quote == "none" else arguments.quote or "auto",
        time_format=arguments.time_format or None,
        duplicates=arguments.duplicates,
        missing=arguments.missing,
    )


def column(arguments: PrepareArguments, role: str) -> str | int | None:
    """The column of a role: its name, its place in a file without a header, or None to guess."""
    given = getattr(arguments, role)
    return int(given) if given.isdecimal() and not arguments.header else given or None


def print_summary(console: Console, log: Interactions) -> None:
    """Sizes and lengths of a log."""
    table = make_table(console)
    for heading in ("the log", ""):
        table.add_column(heading)
    for name, value in log.summary().items():
        shown = f"{value:,}" if isinstance(value, int) and not name.startswith("time") else value
        shown = f"{value:.4g}" if isinstance(value, float) and not name.startswith("time") else shown
        table.add_row(name.replace("_", " "), escape(str(shown)))
    console.print(table)


if __name__ == "__main__":
    run_script(main)
