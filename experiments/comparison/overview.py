"""One page over comparisons on several data sets: the same models, each data set in columns of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import markdown_table

from comparison.report import describe_protocol, notes, p_value, protocol_title, spread

Content = dict[str, Any]
COLUMNS: dict[str, Callable[[Content, str, str], str]] = {
    "validation NDCG@10": lambda content, protocol, name: spread(
        content["validation"].get(name, {"mean": {}}), "ndcg@10"
    ),
    "HR@10": lambda content, protocol, name: spread(_model(content, protocol, name), "hr@10"),
    "NDCG@10": lambda content, protocol, name: spread(_model(content, protocol, name), "ndcg@10"),
    "p": lambda content, protocol, name: p_value(_model(content, protocol, name)),
}


def _model(content: Content, protocol: str, name: str) -> dict[str, Any]:
    return content["protocols"][protocol]["models"][name]


def markdown_overview(contents: dict[str, Content], reports: dict[str, Path]) -> str:
    """The figures of all data sets beside each other, with their protocols and where all the rest stands.

    Args:
      contents: of the JSON files, by what the data sets are called.
      reports: the Markdown file of each, in the folder of this page.
    """
    first = next(iter(contents.values()))
    parts = [
        f"# Comparison on {' and '.join(contents)}",
        f"`{first['command']}`",
        notes({**first, "timing": None}),
        f"All figures: {', '.join(f'[{data}]({path.name})' for data, path in reports.items())}.",
    ]
    for protocol in first["protocols"]:
        described = [f"* {describe_protocol(content, protocol)}" for content in contents.values()]
        parts += [f"## {protocol_title(protocol)}", "\n".join(described), _table(contents, protocol)]
    return "\n\n".join(parts) + "\n"


def _table(contents: dict[str, Content], protocol: str) -> str:
    names = next(iter(contents.values()))["protocols"][protocol]["models"]
    columns = {
        f"{data}: {heading}": [cell(content, protocol, name) for name in names]
        for data, content in contents.items()
        for heading, cell in COLUMNS.items()
    }
    columns = {heading: cells for heading, cells in columns.items() if any(cells)}
    lines = [[name, *cells] for name, *cells in zip(names, *columns.values(), strict=True)]
    return markdown_table(["model", *columns], lines)


__all__ = ["markdown_overview"]
