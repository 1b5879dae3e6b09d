"""Evaluates a run on its data; ``evaluate.py --help`` tells how."""

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from arguments import AsInRun, seen_excluded_in_run
from comparison.runs import deciding_settings
from console import DownloadBar, keep_compiled_programs, make_console, run_script, say
from plugins import Plugins
from rich.console import Console
from rich.markup import escape
from run_data import load_again, source_of
from tables import make_table, print_metrics, print_table

import jaxrec
from jaxrec import artifact
from jaxrec.config import config_to_json
from jaxrec.devices import distributed, processes
from jaxrec.devices.distributed import DistributedConfig
from jaxrec.models.popularity import PopularityRecommender


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Ranks all items for each user of a run's data, shows every metric, and writes them as JSON.

    python experiments/evaluate.py --workdir runs/vgenatt-demo-simulated-seed0 --split validation

    Attributes:
      workdir: directory of the run.
      split: the part whose targets are ranked.
      exclude_seen: whether items of the user's whole history are left out of the ranking; if neither flag is given, as
        in the run's configuration. Published numbers differ in this, and figures of the two kinds must not be compared.
      data: where the data is now, if it has moved since the training or was given from Python; it must be the same
        data. If empty, where it was.
      num_samples: for models that can draw (diffusion, V-GenAtt): how many draws are averaged for each user; 1 asks
        V-GenAtt for its mean.
      popularity: also evaluate the popularity baseline.
      out: a further JSON file for the result, which is written to DIR/evaluations in any case; none if empty.
      record: folder for a JSON file of the result from which readme_tables.py makes a row, such as
        experiments/results; none if empty.
      plugin: modules or .py files with classes of your own (jaxrec.register), imported first; separated by commas.
      cache: keep compiled programs in ~/.cache/jaxrec/xla ($JAXREC_CACHE/xla), so that the next time starts faster.
      debug: show the full traceback of an error.
      distributed: several processes that share the work, each started with this command.
    """

    workdir: Annotated[str, tyro.conf.arg(metavar="DIR")]
    split: Literal["validation", "test"] = "test"
    exclude_seen: AsInRun = True
    data: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = ""
    num_samples: int = 1
    popularity: bool = True
    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    record: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    plugin: Plugins = ""
    cache: bool = True
    debug: bool = False
    distributed: DistributedConfig = DistributedConfig()


def parse_evaluate_arguments(argv: list[str]) -> EvaluateArguments:
    """Reads the flags; seen items are treated as in the run's config unless a flag says otherwise."""
    default = EvaluateArguments(workdir=tyro.MISSING, exclude_seen=seen_excluded_in_run(argv))
    return tyro.cli(EvaluateArguments, prog="python experiments/evaluate.py", args=argv, default=default)


def main(argv: list[str]) -> int:
    """Evaluates and shows; returns the exit code."""
    arguments = parse_evaluate_arguments(argv)
    distributed.initialise(arguments.distributed)
    if arguments.cache:
        keep_compiled_programs()
    console = make_console(quiet=distributed.process_number() > 0)
    out = Path(arguments.out) if arguments.out else None
    if out is not None:
        processes.on_main(lambda: make_place(out))
    run = jaxrec.load(arguments.workdir)
    if arguments.record:
        check_recordable(run)
    source = source_of(run, arguments.data)
    with DownloadBar(console, source.source) as bar:
        split = processes.main_first(lambda: load_again(source, run, bar))
    part, exclude_seen = arguments.split, arguments.exclude_seen
    name = run.workdir.name
    result = run.evaluate(
        part, exclude_seen=exclude_seen, split=split, num_samples=arguments.num_samples, save=False
    )
    written = [artifact.keep_evaluation(run.workdir, result)]
    results = {name: result}
    if arguments.popularity and not isinstance(run.recommender, PopularityRecommender):
        baseline = jaxrec.fit(jaxrec.preset("popularity", evaluation=run.config.evaluation), split)
        results["popularity"] = baseline.evaluate(part, exclude_seen=exclude_seen)
    print_metrics(console, results)
    print_groups(console, result["groups"], run.config.evaluation.cutoffs)
    if out is not None:
        with artifact.writing(out, instead="choose another --out"):
            artifact.write_json(out, result)
        written.append(out)
    if arguments.record and processes.is_main():
        record_result(Path(arguments.record), run, result)
    places = [str(path) for path in written if path is not None]
    if places:
        say(console, f"\nwritten to {escape(' and '.join(places))}")
    return 0


def make_place(out: Path) -> None:
    """Makes the folder of a file, before the work whose result it takes.

    Raises:
      OSError: it cannot be made, or the file is a folder.
    """
    with artifact.writing(out, instead="choose another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def check_recordable(run: jaxrec.Run) -> Path:
    """The file that tells what made a run.

    Raises:
      ValueError: there is none.
    """
    path = run.workdir / "training.json"
    if not path.exists():
        raise ValueError(f"{path} is missing: only runs of train.py can be recorded; type its command again")
    return path


def record_result(folder: Path, run: jaxrec.Run, result: dict[str, Any]) -> Path:
    """Writes a result with what made its run; ``readme_tables.py`` reads it."""
    training = json.loads(check_recordable(run).read_text(encoding="utf-8"))
    card = result["protocol"]
    seen = "excluded" if card["exclude_seen"] else "included"
    preset, samples = training["preset"], card["num_samples"]
    name = f"results-{card['data']}-{preset}-seed{card['seed']}-{card['part']}-seen-{seen}"
    model = f"{preset}, seed {card['seed']}"
    if samples > 1:
        name += f"-{samples}-samples"
        model += f", {samples} samples"
    config = config_to_json(run.config)
    del config["data"]
    content = {
        "kind": "evaluation",
        "command": training["command"],
        "model": model,
        "training": training,
        "config": config,
        "result": result,
    }
    path = folder / f"{name}.json"
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        if deciding_settings(old["config"]) != deciding_settings(config):
            raise ValueError(
                f"{path} holds the result of a run with other settings, {preset} by name as well; move it, or choose"
                " another --record"
            )
    with artifact.writing(folder, instead="choose another --record"):
        artifact.write_json(path, content)
    return path


def print_groups(console: Console, groups: dict[str, dict[str, Any]], cutoffs: tuple[int, ...]) -> None:
    """Accuracy at 10, or the last cutoff, by length of the history and by popularity of the target."""
    cutoff = 10 if 10 in cutoffs else cutoffs[-1]
    table = make_table(console)
    columns = [
        name for name in (f"hr@{cutoff}", f"ndcg@{cutoff}") if all(name in group for group in groups.values())
    ]
    table.add_column("group")
    for heading in ("users", *(name.upper() for name in columns)):
        table.add_column(heading, justify="right")
    for name, group in groups.items():
        table.add_row(escape(name), f"{group['users']:,}", *(f"{group[column]:.4f}" for column in columns))
    print_table(console, "by group of users", table)


if __name__ == "__main__":
    run_script(main)
