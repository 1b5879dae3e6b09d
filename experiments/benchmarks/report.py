"""The records of a benchmark: kept as JSON, shown as a table on the terminal and in Markdown."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, machine_words
from benchmarks.sections import SECTIONS
from benchmarks.settings import DATA_BYTES, PROGRAM

KIND = "benchmark"
HEADINGS = ("what", "figure")
COMMANDS = "`; `"
"""Between the commands of a file that several runs filled: it stands in backquotes."""


class Report:
    """Records, written after every case into one file that several runs may fill.

    Attributes:
      path: the JSON file, or ``None``.
      content: what it holds: ``kind``, ``command`` (of all runs that gave records) and ``records``.
    """

    def __init__(self, path: Path | None, command: str):
        """Takes up what the file holds.

        Raises:
          ValueError: the file is no benchmark's.
        """
        self.path, self.command = path, command
        self.content: dict[str, Any] = {"kind": KIND, "command": command, "records": []}
        if path is not None and path.exists():
            self.content = _read(path)

    def measured(self, section: str, request: dict[str, Any], machine: Row) -> list[Row]:
        """The records of an equal request on an equal machine, if all of them were measured.

        Args:
          section: its name.
          request: see ``request_of``.
          machine: a record with the ``environment`` of this one.
        """
        found = [
            record
            for record in self.content["records"]
            if record["section"] == section
            and _asked_alike(record.get("request"), _plain(request))
            and machine_words(record) == machine_words(machine)
        ]
        return found if all("results" in record for record in found) else []

    def add(self, records: Sequence[Row]) -> None:
        """Keeps records in the place of older ones of the same case and machine, and writes all that there is."""
        records = [_plain({**record, "command": self.command}) for record in records]
        asked = [(record["section"], record.get("request"), machine_words(record)) for record in records]
        cases = [(record["section"], record["case"], machine_words(record)) for record in records]
        kept = [
            old
            for old in self.content["records"]
            if (old["section"], old.get("request"), machine_words(old)) not in asked
            and (old["section"], old["case"], machine_words(old)) not in cases
        ]
        self.content["records"] = kept + records
        commands = dict.fromkeys(
            record.get("command", self.content["command"]) for record in self.content["records"]
        )
        for record in kept:
            record.setdefault("command", self.content["command"])
        self.content["command"] = COMMANDS.join(commands)
        self.write()

    def write(self) -> None:
        """Writes the records, and tables of them beside; a report without a path is kept in memory."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _write(self.path, json.dumps(self.content, indent=1) + "\n")
        _write(self.path.with_suffix(".md"), markdown_report(self.content))


def _asked_alike(old: Any, new: dict[str, Any]) -> bool:
    """Whether a record is an answer to a request; older ones do not tell the size of their data."""
    if not isinstance(old, dict) or old["case"] != new["case"]:
        return False
    settings = dict(new["settings"])
    if DATA_BYTES not in old["settings"]:
        settings.pop(DATA_BYTES, None)
    return old["settings"] == settings


def _plain(value: Any) -> Any:
    """As it will be read back from JSON."""
    return json.loads(json.dumps(value))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}; remove it, or give another file") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ValueError(f"{path} was not written by {PROGRAM}; give another file")
    for record in content["records"]:
        record.setdefault("command", content["command"])
    return content


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
            case = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in record["case"].items())
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


def describe_environment(*records: dict[str, Any]) -> str:
    """Machine, versions, days and load of records of one machine, in one line."""
    facts = records[0]["environment"]
    days, loads = (
        _range(record["environment"][name] for record in records) for name in ("date", "load_average")
    )
    device = facts["processor"] if facts["platform"] == "cpu" else facts["device"]
    return (
        f"{device}, {facts['cores']} cores; jaxrec {facts['jaxrec']}, jax {facts['jax']}, Python"
        f" {facts['python']}; {days}, load average {loads}"
    )


def _range(values: Iterable[str | float]) -> str:
    """The smallest and the largest; of times, the days."""
    found = sorted(value[:10] if isinstance(value, str) else value for value in values)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def markdown_report(content: dict[str, Any]) -> str:
    """All records, by machine and section, with the commands."""
    parts = [f"`{command}`" for command in content["command"].split(COMMANDS)]
    machines = dict.fromkeys(machine_words(record) for record in content["records"])
    for machine in machines:
        records = [record for record in content["records"] if machine_words(record) == machine]
        if machine:
            parts.append(describe_environment(*records))
        for section in SECTIONS:
            lines = [(*line_of(record), *_when(record)) for record in records if record["section"] == section]
            if lines:
                parts.append(f"## {section}\n\n{markdown_table((*HEADINGS, 'median of', 'date'), lines)}")
    return "\n\n".join(parts) + "\n"


def _when(record: dict[str, Any]) -> tuple[str, str]:
    """How often it was timed, at how many seconds; and the day."""
    timing, date = record.get("timing"), record.get("environment", {}).get("date", "")[:10]
    return (f"{timing['repeats']} x {timing['median_seconds']:.3g} s" if timing else ""), date


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
