"""How a diffusion run ranks with other reverse processes than its own; ``sampling.py --help`` tells how."""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from arguments import AsInRun, seen_excluded_in_run
from benchmarks.device import environment
from benchmarks.report import describe_environment, markdown_table
from commands import shown_path
from console import DownloadBar, keep_compiled_programs, make_console, run_script, say
from plugins import Plugins
from rich.console import Console
from rich.markup import escape
from run_data import load_again, source_of
from tables import describe_protocol, make_table, print_table

import jaxrec
from jaxrec import artifact
from jaxrec.config import config_to_json
from jaxrec.data.splits import Split
from jaxrec.models.denoising import DenoisingRecommender

KIND = "sampling"
METRICS = {"hr@10": "HR@10", "ndcg@10": "NDCG@10", "coverage@10": "coverage@10"}
SPEED = "users_per_second"


@dataclasses.dataclass(frozen=True)
class SamplingArguments:
    """Evaluates a diffusion run with several reverse processes: steps, samples averaged, sampler, uncertainty.

    python experiments/sampling.py --workdir runs/diffurec-mine-seed0 --steps 1,4,32 --samples 1,8

    Nothing is trained: the weights are the run's. Choose on the validation part, which is the default.

    Attributes:
      workdir: directory of a run of a diffusion recommender.
      steps: how many reverse steps to take: numbers separated by commas, at most the schedule's T.
      samples: how many samples are averaged for each user: numbers separated by commas.
      samplers: which samplers, separated by commas: ddpm, ddim.
      uncertainties: values of λ, how much of the noised target is seen, separated by commas; the run's own if empty. A
        run that has learned how much it sees (visibility learned) has none.
      split: the part whose targets are ranked.
      exclude_seen: whether items of the user's whole history are left out of the ranking; if neither flag is given, as
        in the run's configuration.
      data: where the data is now, if it has moved since the training or was given from Python; it must be the same
        data. If empty, where it was.
      timed: do each evaluation a second time, its programs compiled, to measure users a second.
      record: folder for sampling-DATA-RUN.json, such as experiments/results; none if empty.
      plugin: modules or .py files with classes of your own (jaxrec.register), imported first; separated by commas.
      cache: keep compiled programs in ~/.cache/jaxrec/xla ($JAXREC_CACHE/xla), so that the next time starts faster.
      debug: show the full traceback of an error.
    """

    workdir: Annotated[str, tyro.conf.arg(metavar="DIR")]
    steps: Annotated[str, tyro.conf.arg(metavar="N,N")] = "1,2,4,8,16,32"
    samples: Annotated[str, tyro.conf.arg(metavar="N,N")] = "1"
    samplers: Annotated[str, tyro.conf.arg(metavar="NAME,NAME")] = "ddpm"
    uncertainties: Annotated[str, tyro.conf.arg(metavar="X,X")] = ""
    split: Literal["validation", "test"] = "validation"
    exclude_seen: AsInRun = True
    data: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH")] = ""
    timed: bool = True
    record: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    plugin: Plugins = ""
    cache: bool = True
    debug: bool = False


@dataclasses.dataclass(frozen=True)
class ReverseProcess:
    """One way to sample.

    Attributes:
      sampler: ``"ddpm"`` or ``"ddim"``.
      steps: reverse steps.
      samples: whose estimates are averaged.
      uncertainty: λ.
    """

    sampler: str
    steps: int
    samples: int
    uncertainty: float

    def of(self, run: jaxrec.Run) -> jaxrec.Run:
        """The run with this reverse process."""
        changes = {
            "sampler_kind": self.sampler,
            "num_inference_steps": self.steps,
            "uncertainty": self.uncertainty,
            "eta": run.recommender.eta if self.sampler == "ddim" else 0.0,  # ddpm has no use for it
        }
        return dataclasses.replace(run, recommender=dataclasses.replace(run.recommender, **changes))


def parse_sampling_arguments(argv: list[str]) -> SamplingArguments:
    """Reads the flags; seen items are treated as in the run's config unless a flag says otherwise."""
    default = SamplingArguments(workdir=tyro.MISSING, exclude_seen=seen_excluded_in_run(argv))
    return tyro.cli(SamplingArguments, prog="python experiments/sampling.py", args=argv, default=default)


def main(argv: list[str]) -> int:
    """Evaluates each reverse process and shows them side by side; returns the exit code."""
    arguments = parse_sampling_arguments(argv)
    if arguments.cache:
        keep_compiled_programs()
    console = make_console()
    run = jaxrec.load(arguments.workdir)
    if not isinstance(run.recommender, DenoisingRecommender):
        raise ValueError(
            f"{arguments.workdir} holds a {type(run.recommender).__name__}, which has no reverse process; give a run"
            " of diffurec or diffurecsys"
        )
    config = config_to_json(run.config)
    del config["data"]
    if arguments.uncertainties and has_learned_visibility(config):
        raise ValueError(
            f"--uncertainties: {arguments.workdir} has learned how much it sees of the noised target, and λ has no"
            " effect on it; leave the flag out"
        )
    ways = reverse_processes(arguments, run.recommender.uncertainty)
    variants = [way.of(run) for way in ways]  # refuses what cannot be before any work
    source = source_of(run, arguments.data)
    with DownloadBar(console, source.source) as bar:
        split = load_again(source, run, bar)
    rows, card = [], {}
    for way, variant in zip(ways, variants, strict=True):
        row, card = measure(variant, way, split, arguments)
        rows.append(row)
        say(console, "  ".join(f"{name} {cell}" for name, cell in cells_of(row, config).items()))
    content = {
        "kind": KIND,
        "command": f"python experiments/sampling.py {shown_flags(arguments, run.config.evaluation.exclude_seen)}",
        "model": run.workdir.name,
        "config": config,
        "environment": environment(),
        "protocol": card,
        "rows": rows,
    }
    show(console, content)
    if arguments.record:
        folder = Path(arguments.record)
        path = folder / f"sampling-{card['data']}-{run.workdir.name}{marks(arguments, run)}.json"
        with artifact.writing(folder):
            artifact.write_json(path, content)
        say(console, f"\nwritten to {escape(str(path))}")
    return 0


def marks(arguments: SamplingArguments, run: jaxrec.Run) -> str:
    """What tells the record of another part, or another treatment of seen items, from the usual one by its name."""
    part = "" if arguments.split == "validation" else f"-{arguments.split}"
    if arguments.exclude_seen == run.config.evaluation.exclude_seen:
        return part
    return f"{part}-seen-{'excluded' if arguments.exclude_seen else 'included'}"


def reverse_processes(arguments: SamplingArguments, uncertainty: float) -> list[ReverseProcess]:
    """Every combination that the flags ask for.

    Raises:
      ValueError: a flag holds something else than numbers.
    """
    uncertainties = numbers("uncertainties", arguments.uncertainties, float) or [uncertainty]
    combinations = itertools.product(
        [name.strip() for name in arguments.samplers.split(",")],
        uncertainties,
        numbers("samples", arguments.samples, int),
        numbers("steps", arguments.steps, int),
    )
    return [ReverseProcess(kind, steps, samples, scale) for kind, scale, samples, steps in combinations]


def has_learned_visibility(config: dict[str, Any]) -> bool:
    """Whether the model of a config, in its JSON form, sees the noised target by learned scales in place of λ."""
    return config["model"].get("visibility") == "learned"


def numbers(flag: str, text: str, kind: type) -> list:
    """Numbers separated by commas.

    Raises:
      ValueError: something else stands there, or a count below 1.
    """
    try:
        found = [kind(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise ValueError(f"--{flag} {text!r}: give numbers separated by commas") from None
    if kind is int and (not found or min(found) < 1):
        raise ValueError(f"--{flag} {text!r}: give at least one number, none below 1")
    return found


def measure(
    run: jaxrec.Run, way: ReverseProcess, split: Split, arguments: SamplingArguments
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of figures, and the protocol card."""

    def evaluate() -> dict[str, Any]:
        return run.evaluate(
            arguments.split,
            exclude_seen=arguments.exclude_seen,
            split=split,
            num_samples=way.samples,
            save=False,
        )

    result = evaluate()
    row = {**dataclasses.asdict(way), **{name: result[name] for name in METRICS if name in result}}
    if arguments.timed:
        start = time.perf_counter()
        evaluate()
        row[SPEED] = len(split.targets(arguments.split)) / (time.perf_counter() - start)
    card = dict(result["protocol"])
    del card["num_samples"]
    return row, card


def cells_of(row: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    """A row as text, by heading; without λ where it has no effect, and without the speed where it was not taken."""
    cells = {"sampler": row["sampler"], "steps": str(row["steps"]), "samples": str(row["samples"])}
    if not has_learned_visibility(config):
        cells["λ"] = f"{row['uncertainty']:g}"
    cells |= {heading: f"{row[name]:.4f}" for name, heading in METRICS.items() if name in row}
    return {**cells, "users/s": f"{row[SPEED]:,.0f}"} if SPEED in row else cells


def show(console: Console, content: dict[str, Any]) -> None:
    """The table on the terminal."""
    table = make_table(console)
    lines = [cells_of(row, content["config"]) for row in content["rows"]]
    for heading in lines[0]:
        table.add_column(heading, justify="right")
    for line in lines:
        table.add_row(*line.values())
    print_table(console, f"{escape(content['model'])}: {describe_protocol(content['protocol'])}", table)


def shown_flags(arguments: SamplingArguments, of_the_run: bool) -> str:
    """The flags that decide the figures.

    Args:
      arguments: all flags.
      of_the_run: the run's own ``exclude_seen``, for which no flag is needed.
    """
    flags = [f"--workdir {shown_path(arguments.workdir)}"]
    for field in dataclasses.fields(SamplingArguments):
        value = getattr(arguments, field.name)
        if (
            field.name in ("steps", "samples", "samplers", "uncertainties", "split")
            and value != field.default
        ):
            flags.append(f"--{field.name} {value}")
    if arguments.exclude_seen != of_the_run:
        flags.append("--exclude-seen" if arguments.exclude_seen else "--no-exclude-seen")
    return " ".join([*flags, *([] if arguments.timed else ["--no-timed"])])


def readme_table(content: dict[str, Any]) -> str:
    """The table in Markdown, under its protocol, with the command that made it."""
    protocol = describe_protocol(content["protocol"])
    lines = [cells_of(row, content["config"]) for row in content["rows"]]
    table = markdown_table(list(lines[0]), [list(line.values()) for line in lines])
    machine = describe_environment(content)
    return f"{content['model']}, {protocol}; by `{content['command']}` ({machine})\n\n{table}"


if __name__ == "__main__":
    run_script(main)
