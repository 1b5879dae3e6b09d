"""Measures speed and memory of every part of the road; ``benchmark.py --help`` tells how.

It needs jax, flax, optax and rich; what needs grain or polars is skipped where they are missing.
"""

import sys

from benchmarks.apart import run_apart
from benchmarks.dataset import missing
from benchmarks.plots import draw_plots
from benchmarks.processes import end_as_by_interrupt
from benchmarks.report import HEADINGS, Report, describe_environment, json_path, line_of
from benchmarks.sections import SECTIONS, request_of, run_case
from benchmarks.settings import PROGRAM, Settings, parse_settings
from commands import shown_command
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jaxrec.serialization import nearest


def main(argv: list[str]) -> int:
    """Measures, shows and writes; returns 1 if a case failed."""
    settings = parse_settings(argv)
    console = Console(highlight=False)
    sections = chosen_sections(settings)
    report = Report(json_path(settings.json), shown_command(PROGRAM, argv))
    machine = run_apart("benchmarks.device:environment")
    failures = 0
    for section in sections:
        records = []
        for case in SECTIONS[section].cases(settings):
            console.print(f"[dim]{section}: {escape(str(case))}[/]", soft_wrap=True)
            request = request_of(settings, case)
            again = settings.again or settings.trace  # a profile is of a run
            found = [] if again else report.measured(section, request, {"environment": machine})
            if found:
                console.print("[dim]measured before; --again measures it anew[/]")
            else:
                found = run_case(settings, section, case, machine)
                report.add(found)
            records += found
        failures += sum("failed" in record for record in records)
        print_section(console, section, records)
    if report.path is not None:
        report.write()  # also where all was measured before
        paths = draw_plots(report.content, report.path.with_suffix(""))
        console.print(
            f"written to {escape(str(report.path))}, and as tables to the .md beside it"
            + (f"; plots: {', '.join(escape(path.name) for path in paths)}" if paths else ""),
            soft_wrap=True,
        )
    return int(failures > 0)


def chosen_sections(settings: Settings) -> list[str]:
    """The sections asked for, in the order of the benchmark."""
    for name in settings.sections:
        if name not in SECTIONS:
            raise ValueError(f"there is no section {name!r}{nearest(name, SECTIONS)}")
    return [name for name in SECTIONS if not settings.sections or name in settings.sections]


def print_section(console: Console, section: str, records: list[dict]) -> None:
    """One line a record, under the machine that it was measured on."""
    measured = [record for record in records if "environment" in record]
    where = f": {describe_environment(*measured)}" if measured else ""
    console.print(f"\n[bold]{section}[/]{escape(where)}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_lines=False)
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for record in records:
        table.add_row(*map(escape, line_of(record)))
    console.print(table)


if __name__ == "__main__":
    end_as_by_interrupt()
    if missing(("polars", "tyro")):  # what the other scripts share needs them; a bare machine does without
        raise SystemExit(main(sys.argv[1:]))
    from console import run_script

    run_script(main)
