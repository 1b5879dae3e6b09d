"""The records of a benchmark: kept as JSON, shown as a table on the terminal and in Markdown."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.sections import SECTIONS

KIND = "benchmark"
HEADINGS = ("what", "figure")


class Report:
    """Records in the order in which they were measured, written after every case.

    Attributes:
      path: the JSON file, or ``None``.
      content: what it holds: ``kind``, ``command`` and ``records``.
    """

    def __init__(self, path: Path | None, command: str):
        self.path = path
        self.content: dict[str, Any] = {"kind": KIND, "command": command, "records": []}

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Keeps records, and writes what there is so far."""
        self.content["records"] += records
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _write(self.path, json.dumps(self.content, indent=1) + "\n")
        _write(self.path.with_suffix(".md"), markdown_report(self.content))


def json_path(text: str) -> Path | None:
    """Where the records go: a file as it is, ``benchmark.json`` in a folder."""
    if not text:
        return None
    return Path(text) if text.endswith(".json") else Path(text) / "benchmark.json"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def line_of(record: dict[str, Any]) -> tuple[str, str]:
    """What was measured, and the figure or why there is none."""
    for word in ("skipped", "failed"):
        if word in record:
            case = ", ".join(f"{name} {value}" for name, value in record["case"].items())
            return f"{record['section']}: {case}", f"{word}: {record[word]}"
    return SECTIONS[record["section"]].describe(record["case"], record["results"])


def main_records(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The records that a README shows: measured ones, without the details."""
    return [
        record
        for record in content["records"]
        if "results" in record and record["case"].get("part") not in SECTIONS[record["section"]].DETAILS
    ]


def markdown_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; the first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    rows = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows))


def describe_environment(record: dict[str, Any]) -> str:
    """Machine, versions, load and date in one line."""
    facts = record["environment"]
    device = facts["processor"] if facts["platform"] == "cpu" else facts["device"]
    return (
        f"{device}, {facts['cores']} cores; jaxrec {facts['jaxrec']}, jax {facts['jax']}, Python"
        f" {facts['python']}; {facts['date'][:10]}, load average {facts['load_average']}"
    )


def markdown_report(content: dict[str, Any]) -> str:
    """All records by section, with the machine and the command."""
    parts = [f"`{content['command']}`"]
    measured = [record for record in content["records"] if "environment" in record]
    if measured:
        parts.append(describe_environment(measured[0]))
    for section in SECTIONS:
        lines = [line_of(record) for record in content["records"] if record["section"] == section]
        if lines:
            parts.append(f"## {section}\n\n{markdown_table(HEADINGS, lines)}")
    return "\n\n".join(parts) + "\n"


__all__ = [
    "HEADINGS",
    "KIND",
    "Report",
    "describe_environment",
    "json_path",
    "line_of",
    "main_records",
    "markdown_report",
    "markdown_table",
]
