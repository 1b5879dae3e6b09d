"""Trains a recommender on embedded, named or your own data; ``train.py --help`` tells how."""

import csv
import importlib.util
from pathlib import Path

from arguments import parse_train_arguments, takes_default_preset
from console import DownloadBar, keep_compiled_programs, make_console, run_script, say, script_path
from plugins import plugin_flag
from rich.console import Console
from rich.markup import escape
from tables import print_metrics, print_recommendations, user_histories
from training_record import TrainingRecord

import jaxrec
from jaxrec.config import Config
from jaxrec.data.source import SIMULATED, load_split, simulated_process
from jaxrec.data.splits import Split
from jaxrec.devices import distributed, processes
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.train.logging import Reporter, RichProgress, Several, TensorBoard

SHOWN_USERS = 3
EXAMPLE_HISTORIES = "example-histories.csv"


def main(argv: list[str]) -> int:
    """Trains, or goes on, and shows the results; returns the exit code."""
    arguments = parse_train_arguments(argv)
    config, workdir = arguments.config, Path(arguments.workdir)
    distributed.initialise(arguments.distributed)
    if arguments.cache:
        keep_compiled_programs()
    console = make_console(quiet=distributed.process_number() > 0)
    with DownloadBar(console, config.data.source) as bar:
        split = processes.main_first(lambda: load_split(config.data, progress=bar))
    say(console, f"[bold]data[/] {escape(describe_split(split))}")
    record = TrainingRecord(workdir, arguments.preset, argv)
    say(console, f"[bold]run[/]  {escape(str(workdir))}: {describe_model(config, record.preset)}")
    if takes_default_preset(argv):
        say(console, default_preset_note(arguments.preset))
    run = jaxrec.fit(config, split, workdir, reporter=Several(record, *reporters(console, workdir)))
    if run.interrupted:
        say(console, f"stopped and saved; to go on: {command('train.py', workdir, arguments.plugin)}")
        return 128 + run.interrupted
    if not record.calls and not isinstance(run.recommender, PopularityRecommender):
        say(console, "this run is complete already; its results:")
    record.finish(run)
    show_results(console, run, split, record.preset, arguments.plugin)
    return 0


def reporters(console: Console, workdir: Path) -> list[Reporter]:
    """The progress bar, and TensorBoard where it is installed (the JSON lines are written in any case)."""
    found: list[Reporter] = [RichProgress(console)]
    if importlib.util.find_spec("tensorboard"):
        found.append(TensorBoard(workdir / "tensorboard"))
    return found


def default_preset_note(name: str) -> str:
    """That nobody has chosen the preset, and how one does."""
    return f"[yellow]note:[/] {name} is the default preset; --preset sasrec takes another one, --help names them all"


def describe_split(split: Split) -> str:
    """A split in one line."""
    log, untrained = split.interactions, split.never_trained("test")
    warning = f", {untrained:,} of them items that never occur in training" if untrained else ""
    return (
        f"{log.name}: {log.num_users:,} users, {log.num_items:,} items,"
        f" {log.num_interactions:,} interactions; {split.name}, {len(split.test):,} test targets{warning}"
    )


def describe_model(config: Config, preset: str) -> str:
    """The model of a config in one line, under the preset's name."""
    model = config.model
    facts = [preset]
    if hasattr(model, "attention"):
        facts.append(f"attention {type(model.attention).__name__}")
    facts += [f"{name} {getattr(model, name)}" for name in ("width", "num_layers") if hasattr(model, name)]
    return ", ".join(facts) + f", seed {config.seed}"


def show_results(console: Console, run: jaxrec.Run, split: Split, name: str, plugin: str) -> None:
    """Test metrics beside popularity's (and the best possible), some users' lists, and what to type next."""
    results = {name: run.evaluate("test")}
    exclude_seen = run.config.evaluation.exclude_seen
    if not isinstance(run.recommender, PopularityRecommender):
        popularity = jaxrec.fit(jaxrec.preset("popularity", evaluation=run.config.evaluation), split)
        results["popularity"] = popularity.evaluate("test", exclude_seen=exclude_seen)
    print_metrics(console, results)
    metric = run.config.evaluation.select_by
    if metric in results[name].get("intervals", {}):
        low, high = results[name]["intervals"][metric]
        say(
            console,
            f"{metric.upper()} {results[name][metric]:.4f}, 95 % interval over users {low:.4f} to {high:.4f}",
        )
    shows_oracle = run.config.data.source == SIMULATED and exclude_seen and "ndcg@10" in results[name]
    if shows_oracle and processes.is_main():
        show_oracle(console, run.config, split, results[name]["ndcg@10"])
    if run.training_seconds:
        say(console, f"trained in {run.training_seconds:.0f} s, evaluations included")
    users = split.targets("test").users[:SHOWN_USERS]
    print_recommendations(console, run, split, users)
    if processes.is_main():
        write_histories(run.workdir / EXAMPLE_HISTORIES, split, users)
    say(console, f"\nthe run is in {escape(str(run.workdir))}; next you may type")
    other = "no-exclude-seen" if exclude_seen else "exclude-seen"
    say(console, f"  {command('evaluate.py', run.workdir, plugin)} --split test --{other}")
    histories = f"--histories {run.workdir / EXAMPLE_HISTORIES} --k 10 --out recommendations.csv"
    say(console, f"  {command('recommend.py', run.workdir, plugin)} {escape(histories)}")


def show_oracle(console: Console, config: Config, split: Split, ndcg: float) -> None:
    """The NDCG@10 of ranking by the simulator's own probabilities, and the share of it that was reached."""
    from jaxrec.data.oracle import oracle_score

    best = oracle_score(simulated_process(config.data), split, "test").ndcg
    share = f"; the model reaches {ndcg / best:.0%} of it" if best > 0 else ""
    say(console, f"best possible NDCG@10, by the simulator's true probabilities: {best:.4f}{share}")


def write_histories(path: Path, split: Split, users: list[int]) -> None:
    """Writes some users' histories as a log that ``recommend.py`` reads."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id"])
        for user, history in user_histories(split, users).items():
            writer.writerows((user, item) for item in history)


def command(script: str, workdir: Path, plugin: str) -> str:
    """A script on a run, as one types it."""
    return escape(f"python {script_path(script)} --workdir {workdir}{plugin_flag(plugin)}")


if __name__ == "__main__":
    run_script(main)
