"""Compares models over several seeds and data sets; ``compare.py --help`` tells how."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.dataset import missing
from commands import shown_command, shown_path
from comparison.members import RANDOM, Member, make_members
from comparison.overview import markdown_overview
from comparison.plots import draw_plots
from comparison.report import TERMINAL_HEADINGS, describe_protocol, markdown_report, notes, short_table
from comparison.runs import EXCLUDED, INCLUDED, RunRecord, make_record, read_record, run_directory
from comparison.settings import PROGRAM, CompareArguments, parse_compare_arguments
from comparison.source import note_on_sources, source_hash
from comparison.summary import content_of
from comparison.timing import time_members
from console import DownloadBar, keep_compiled_programs, make_console, run_script, say
from plugins import plugin_flag
from rich.console import Console
from rich.markup import escape
from tables import make_table, print_table
from train import describe_split, reporters

from jaxrec import artifact
from jaxrec.data.source import load_split
from jaxrec.serialization import nearest
from jaxrec.train.logging import Several
from jaxrec.train.stopping import StopRequest, stop_signals

if TYPE_CHECKING:
    from jaxrec.data.splits import Split


def main(argv: list[str]) -> int:
    """Trains what is not trained yet, compares, shows and writes; returns the exit code."""
    arguments = parse_compare_arguments(argv)
    alone = arguments.of_each_data
    members = [make_members(one) for one in alone]
    baseline_of(arguments)  # wrong names are told before anything is read
    further_baselines(arguments)
    if arguments.cache:
        keep_compiled_programs()
    source_hash()  # now: the files may change while models train
    console = make_console()
    splits = [read_split(console, one) for one in alone]
    contents, reports = {}, {}
    for one, own_members, split in zip(alone, members, splits, strict=True):
        with stop_signals() as stop:
            records = all_records(console, one, own_members, split, stop)
            if stop.is_set():
                again = escape(command(argv))
                say(console, f"stopped and saved; the same command goes on from here: {again}")
                return 128 + stop.number
        content = compare(console, one, own_members, split, records, argv)
        show(console, content)
        contents[one.data_name], reports[one.data_name] = content, write(console, content, one.out_path)
    if len(contents) > 1:
        write_overview(console, markdown_overview(contents, reports), arguments.overview_path)
    return 0


def read_split(console: Console, arguments: CompareArguments) -> "Split":
    """The data of one comparison."""
    with DownloadBar(console, arguments.data.source) as bar:
        split = load_split(arguments.data, progress=bar)
    say(console, f"[bold]data[/] {escape(describe_split(split))}")
    return split


def compare(
    console: Console,
    arguments: CompareArguments,
    members: list[Member],
    split: "Split",
    records: list[RunRecord],
    argv: list[str],
) -> dict[str, Any]:
    """What the JSON file on one data set holds; models are timed first."""
    baseline, timing = baseline_of(arguments), None
    if arguments.timing_rounds:
        say(console, "timing training steps and recommendations of all models in turn")
        timing = time_members(members, split, baseline=baseline, rounds=arguments.timing_rounds)
    return content_of(
        records,
        protocols_of(arguments),
        baseline=baseline,
        also_against=further_baselines(arguments),
        command=shown_command(PROGRAM, argv),
        run_commands={(record.name, record.seed): run_command(arguments, record) for record in records},
        timing=timing,
    )


def protocols_of(arguments: CompareArguments) -> tuple[str, ...]:
    """The protocols of the test's figures."""
    return (EXCLUDED, INCLUDED) if arguments.seen_included else (EXCLUDED,)


def baseline_of(arguments: CompareArguments) -> str:
    """The model that the others are tested against.

    Raises:
      ValueError: it is not compared.
    """
    names = arguments.names
    if not arguments.baseline:
        return "sasrec" if "sasrec" in names else names[0]
    if arguments.baseline not in names:
        raise ValueError(
            f"--baseline {arguments.baseline} is not among the models compared{nearest(arguments.baseline, names)}"
        )
    return arguments.baseline


def further_baselines(arguments: CompareArguments) -> list[str]:
    """Further models that the others are tested against.

    Raises:
      ValueError: one is not compared, or is a baseline already.
    """
    further = [name.strip() for name in arguments.also_against.split(",") if name.strip()]
    for place, name in enumerate(further):
        if name not in arguments.names:
            raise ValueError(
                f"--also-against {name} is not among the models compared{nearest(name, arguments.names)}"
            )
        if name in (baseline_of(arguments), *further[:place]):
            raise ValueError(f"--also-against {name}: the others are tested against it already; leave it out")
    return further


def all_records(
    console: Console,
    arguments: CompareArguments,
    members: list[Member],
    split: "Split",
    stop: StopRequest,
) -> list[RunRecord]:
    """The records of all runs, in the order of the table; the first seed of every model is trained first."""
    seeds, protocols = arguments.seed_numbers, protocols_of(arguments)
    pairs = [(member, seed) for seed in seeds for member in members if member.seeded or seed == seeds[0]]
    records: dict[tuple[str, int], RunRecord] = {}
    finished: list[RunRecord] = []
    for number, (member, seed) in enumerate(pairs, 1):
        if stop.is_set():
            break
        directory = run_directory(arguments.runs_folder, member, seed)
        title = f"[bold]run {number} of {len(pairs)}[/] {escape(member.name)}, seed {seed}"
        record = read_record(directory, member, seed, split, protocols)
        if record is not None:
            say(console, f"{title}: finished before")
            finished.append(record)
        else:
            say(console, title)
            reporter = reporters(console, directory)
            record = make_record(
                directory, member, seed, split, protocols, reporter=Several(*reporter), stop=stop
            )
        if record is not None:
            say(console, describe_run(record))
            records[member.name, seed] = record
    if note := note_on_sources(finished):
        say(console, f"[yellow]note:[/] {escape(note)}")
    order = [(member.name, seed) for member in members for seed in seeds]
    return [records[pair] for pair in order if pair in records]


def describe_run(record: RunRecord) -> str:
    """The figures of a run in one line: those to choose by, then those of the test, ranked alike if they were."""
    chosen = record.facts.get("validation")
    evaluation = record.facts["config"].get("evaluation", {})
    alike = EXCLUDED if evaluation.get("exclude_seen", True) else INCLUDED
    protocol = alike if alike in record.results else EXCLUDED
    result = record.results[protocol]
    validation = (
        f"validation NDCG@10 {chosen['ndcg@10']:.4f} (epoch {chosen['epoch']:.1f}); " if chosen else ""
    )
    ranked = "" if protocol == EXCLUDED and alike == protocol else f" ({protocol.replace('-', ' ')})"
    return f"  {validation}test NDCG@10 {result['ndcg@10']:.4f}, HR@10 {result['hr@10']:.4f}{ranked}"


def command(argv: list[str]) -> str:
    """This comparison, as one types it."""
    return f"{PROGRAM} {shlex.join(argv)}".strip()


def run_command(arguments: CompareArguments, record: RunRecord) -> str:
    """One run by itself, from its config, which is in the results as well; nothing for random lists."""
    if record.name == RANDOM:
        return ""
    workdir = Path(shown_path(arguments.workdir))
    directory = workdir / arguments.study_name / f"{record.name}-seed{record.seed}"
    flags = ["--config", str(directory / artifact.CONFIG), "--workdir", str(directory)]
    return f"python experiments/train.py {shlex.join(flags)}{plugin_flag(arguments.plugin, shown=True)}"


def show(console: Console, content: dict[str, Any]) -> None:
    """The short table of every protocol."""
    for protocol in content["protocols"]:
        headings, lines = short_table(content, protocol, TERMINAL_HEADINGS)
        table = make_table(console)
        for place, heading in enumerate(headings):
            table.add_column(heading, justify="right" if place else "left", no_wrap=True)
        for line in lines:
            table.add_row(*map(escape, line))
        print_table(console, escape(describe_protocol(content, protocol)), table)
    say(console, escape(notes(content)))


def write(console: Console, content: dict[str, Any], out: Path) -> Path:
    """Writes the JSON file, the Markdown tables and the plots; returns the path of the tables."""
    report = out.with_name(f"{out.name}.md")
    with artifact.writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        artifact.write_json(out.with_name(f"{out.name}.json"), content)
        plots = [] if missing(("matplotlib",)) else draw_plots(content, out)
        report.write_text(markdown_report(content, plots), encoding="utf-8")
    drawn = " and -*.png" if plots else "; no plots, as matplotlib is not installed"
    say(console, f"\nwritten to {escape(str(out))}.json, .md{drawn}")
    return report


def write_overview(console: Console, text: str, path: Path) -> None:
    """Writes the page over several data sets."""
    with artifact.writing(path.parent):
        path.write_text(text, encoding="utf-8")
    say(console, f"the page over all data sets: {escape(str(path))}")


if __name__ == "__main__":
    run_script(main)
