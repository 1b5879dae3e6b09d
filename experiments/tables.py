"""Tables on the terminal: metrics of models side by side, and recommendations with titles."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jaxrec.run import Run

if TYPE_CHECKING:
    from jaxrec.data.splits import Split

METRIC_NAMES = {
    "hr": "HR",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "coverage": "item coverage",
    "gini": "Gini of item counts",
    "entropy": "entropy of item counts",
    "novelty": "novelty (bits)",
    "ild": "intra-list distance",
    "category_ild": "distance by categories",
    "cc": "category coverage CC",
    "f": "F of accuracy and CC",
}
NAME_AT_CUTOFF = re.compile(r"(\w+)@(\d+)")


def make_table(console: Console) -> Table:
    """An empty table: ruled on a terminal, aligned columns elsewhere."""
    style = box.SIMPLE_HEAD if console.is_terminal else None
    return Table(box=style, pad_edge=False)


def print_table(console: Console, title: str, table: Table) -> None:
    """A table under its title; the title is not cut to the table's width."""
    console.print(f"\n[bold]{title}[/]", soft_wrap=True)
    console.print(table)


def print_metrics(console: Console, results: dict[str, dict[str, Any]]) -> None:
    """One row a metric, one column a model and cutoff, under the protocol that they share.

    Args:
      console: where it is shown.
      results: what ``Run.evaluate`` gave, by name of the model.
    """
    first = next(iter(results.values()))
    found = [match for name in first if (match := NAME_AT_CUTOFF.fullmatch(name))]
    names = sorted({match[1] for match in found}, key=_place)
    cutoffs = sorted({int(match[2]) for match in found})
    table = make_table(console)
    table.add_column("metric")
    for model in results:
        for cutoff in cutoffs:
            table.add_column(f"{model}\n@{cutoff}", justify="right")
    for name in names:
        values = [result.get(f"{name}@{cutoff}") for result in results.values() for cutoff in cutoffs]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        table.add_row(METRIC_NAMES.get(name, name), *cells)
    untrained = first.get("targets_never_trained")
    note = f"; {untrained:,} targets are items that never occur in training" if untrained else ""
    print_table(console, describe_protocol(first["protocol"]) + note, table)


def _place(name: str) -> tuple[int, str]:
    names = list(METRIC_NAMES)
    return (names.index(name) if name in names else len(names), name)


def describe_protocol(card: dict[str, Any]) -> str:
    """A protocol card in one line."""
    seen = "excluded" if card["exclude_seen"] else "included"
    return (
        f"{card['part']} of {escape(card['data'])} ({card['users']:,} users, {card['items']:,} items),"
        f" {card['split']}: {card['candidates']} ranked, seen ones {seen}"
    )


def print_recommendations(
    console: Console, run: Run, split: "Split", users: Sequence[int], *, k: int = 5
) -> None:
    """What some users had last, and what they would get next, side by side.

    Args:
      console: where it is shown.
      run: the recommender.
      split: whose log holds the histories.
      users: rows of the users.
      k: length of the lists, and of the end of the history that is shown.
    """
    histories = user_histories(split, users)
    frame = run.recommend(histories, k=k)
    table = make_table(console)
    for heading in ("user", "had, newest first", "rank", "gets"):
        table.add_column(heading)
    for user, history in histories.items():
        had = item_labels(run, history[: -k - 1 : -1])
        gets = item_labels(run, frame.filter(frame["user_id"] == user)["item_id"].to_list())
        rows = max(len(had), len(gets))
        for place in range(rows):
            cells = [escape(str(user)) if place == 0 else "", had[place] if place < len(had) else ""]
            cells += [str(place + 1), gets[place]] if place < len(gets) else ["", ""]
            table.add_row(*cells, end_section=place + 1 == rows)
    print_table(console, "recommendations after the whole history", table)


def user_histories(split: "Split", users: Sequence[int]) -> dict[Any, list]:
    """The whole histories of some users (rows), under external ids, oldest first."""
    log = split.interactions
    return {
        log.users.external([user])[0]: log.item_ids.external(
            log.items[log.offsets[user] : log.offsets[user + 1]] - 1
        ).to_list()
        for user in users
    }


def item_labels(run: Run, item_ids: list) -> list[str]:
    """Titles with ids, or ids alone, of items of a run's catalogue."""
    metadata = run.catalogue.metadata
    rows = run.catalogue.item_ids.lookup(item_ids)
    titles = [None] * len(item_ids) if metadata is None else metadata.titles.gather(rows).to_list()
    return [
        f"{escape(title)} [dim]({escape(str(item))})[/]" if title else escape(str(item))
        for item, title in zip(item_ids, titles, strict=True)
    ]


__all__ = [
    "describe_protocol",
    "item_labels",
    "make_table",
    "print_metrics",
    "print_recommendations",
    "print_table",
    "user_histories",
]
