"""Everything to be measured on an accelerator, in stages: benchmarks, profile, full trainings.

    python experiments/accelerator.py --out results --beauty amazon-beauty.seq.txt.gz --ml-1m ml-1m.seq.txt.gz

It needs jax; packages that are missing are installed from a folder of wheels (``--wheels``) into the folder of
results, for such a machine often has no way out. Every stage has a limit of time. A stage that was finished with
the same flags is not run again, one that was cut off goes on: benchmarks by row, trainings from their checkpoints.
``--minutes`` ends the whole in time, as on a machine that is rented by the hour; ``--pack`` then leaves one file to
take along, and ``--unpack`` takes up from it elsewhere (without checkpoints: a training that was cut off starts anew).
``--small`` does all of it at tiny sizes on the CPU, to see whether it runs.
"""

import argparse
import importlib.metadata
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from accelerator_stages import Plan, Stage
from commands import shown_path

EXPERIMENTS = Path(__file__).parent
REPOSITORY = EXPERIMENTS.parent
STATE, SITE, LOGS, CHECKPOINTS = "stages.json", "site", "logs", "checkpoints"
NEEDED = ("jax", "flax", "optax", "orbax-checkpoint", "chex", "grain", "polars", "tyro", "rich", "matplotlib")
GRACE_SECONDS = 45.0
"""From the request to stop until the end: time for a checkpoint."""


def main(argv: list[str]) -> int:
    """Runs the stages asked for; returns 0 if all are finished, 1 if a command failed, 3 if time ran out."""
    arguments = parse(argv)
    started = time.monotonic()
    out = arguments.out  # as given: it stands in the commands that the results name
    if arguments.unpack:
        unpack(arguments.unpack, out)
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan(out, arguments.beauty, arguments.ml_1m, arguments.seeds, arguments.small)
    stages = chosen(plan.stages(), arguments.stages)
    install(arguments.wheels, out)
    ending = started + 60.0 * arguments.minutes if arguments.minutes else float("inf")
    state, worst = read_state(out), 0
    for stage in stages:
        before = state.get(stage.name, {})
        if before.get("finished") and is_the_same(before, stage.name, arguments) and not arguments.again:
            print(f"{stage.name}: finished before")
            continue
        left = ending - time.monotonic() - GRACE_SECONDS
        if left < 30.0:
            print(f"{stage.name}: no time left")
            worst = worst or 3
            continue
        record = run_stage(stage, out, min(stage.limit_seconds, left), arguments)
        state = {**read_state(out), stage.name: record}
        (out / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        if not record["finished"]:
            worst = worst or (3 if record["out_of_time"] else 1)
    if arguments.pack:
        pack(out, arguments.pack)
        print(f"packed into {arguments.pack}")
    return worst


def parse(argv: list[str]) -> argparse.Namespace:
    """The flags; argparse, as tyro may have to be installed first."""
    parser = argparse.ArgumentParser(
        "python experiments/accelerator.py",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )

    def add(flag: str, default: Any, help: str, kind: Callable[[str], Any] = str) -> None:
        shown = "none" if default is None else default
        parser.add_argument(flag, default=default, type=kind, help=f"{help} (default: {shown})")

    names = "\n".join(f"  {stage.name}" for stage in Plan(Path(), "", "").stages())
    add("--out", Path("runs/accelerator"), "folder of the results", Path)
    parser.add_argument(
        "--stages", default="", help=f"stages to run, separated by commas (default: all), of\n{names}"
    )
    add("--beauty", "amazon-2014-beauty", "Amazon Beauty: a name, a file, or a prepared folder")
    add("--ml-1m", "movielens-1m", "MovieLens-1M: a name, a file, or a prepared folder")
    add("--seeds", "0,1,2", "seeds of the full trainings, separated by commas")
    add("--wheels", None, "folder of wheels for packages that are not installed", Path)
    add("--minutes", 0.0, "minutes that all stages may take together; 0 is no limit", float)
    add("--pack", None, "write the results into this .tar.gz at the end", Path)
    add("--unpack", None, "take up the results of such a .tar.gz first", Path)
    parser.add_argument("--again", action="store_true", help="run finished stages again, measuring anew")
    parser.add_argument("--small", action="store_true", help="tiny sizes, on the CPU")
    return parser.parse_args(argv)


def chosen(stages: list[Stage], names: str) -> list[Stage]:
    """The stages of a list of names, in their own order.

    Raises:
      SystemExit: there is no such stage.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [stage.name for stage in stages]
    for name in wanted:
        if name not in known:
            raise SystemExit(f"error: there is no stage {name!r}; there are {', '.join(known)}")
    return [stage for stage in stages if not wanted or stage.name in wanted]


def install(wheels: Path | None, out: Path) -> None:
    """Installs those wheels of a folder whose packages are missing, and says what is missing then."""
    site = out / SITE
    absent = [path for path in sorted(wheels.glob("*.whl")) if not installed(path, site)] if wheels else []
    if absent:
        flags = ("--quiet", "--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", str(site))
        command = [sys.executable, "-m", "pip", "install", *flags, *map(str, absent)]
        subprocess.run(command, check=True)
        print(f"installed {', '.join(path.name.split('-')[0] for path in absent)}")
    found = {normal(distribution.name) for distribution in distributions(site)}
    missing = [name for name in NEEDED if normal(name) not in found]
    if missing:
        print(f"not installed: {', '.join(missing)}; what needs them is skipped or fails")


def distributions(site: Path) -> list[importlib.metadata.Distribution]:
    """What is installed, in a folder too."""
    return list(importlib.metadata.distributions(path=[*sys.path, str(site)]))


def installed(wheel: Path, site: Path) -> bool:
    """Whether a wheel's package is there."""
    return normal(wheel.name.split("-")[0]) in {normal(one.name) for one in distributions(site)}


def normal(name: str | None) -> str:
    """A package's name as all its spellings are compared."""
    return re.sub(r"[-_.]+", "-", name or "").lower()


def run_stage(stage: Stage, out: Path, limit_seconds: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the commands of a stage within the limit; their output goes into a file.

    Returns:
      ``finished``, ``out_of_time``, ``codes`` of the commands that ran, ``seconds``, ``limit_seconds``, ``small`` and
      what was ``asked``.
    """
    path = out / LOGS / f"{stage.name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"{stage.name}: {stage.what} (at most {limit_seconds / 60:.1f} min; {path})", flush=True)
    start, codes, out_of_time = time.monotonic(), [], False
    with path.open("a", encoding="utf-8") as log:
        for script, *flags in stage.commands:
            again = ["--again"] if arguments.again and script == "benchmark.py" else []
            command = [sys.executable, str(EXPERIMENTS / script), *flags, *again]
            log.write(f"$ python experiments/{script} {shlex.join([*flags, *again])}\n")
            log.flush()
            left = limit_seconds - (time.monotonic() - start)
            code, out_of_time = run_limited(command, log, left, environment(out, arguments.small))
            codes.append(code)
            if out_of_time:
                break
    seconds = time.monotonic() - start
    finished = not out_of_time and not any(codes)
    words = "finished" if finished else "out of time" if out_of_time else "a command failed, see its log"
    print(f"{stage.name}: {words} after {seconds / 60:.1f} min", flush=True)
    facts = {"finished": finished, "out_of_time": out_of_time, "codes": codes}
    facts |= {"seconds": round(seconds, 1), "limit_seconds": limit_seconds}
    return {**facts, "small": arguments.small, "asked": asked(stage.name, arguments)}


def asked(name: str, arguments: argparse.Namespace) -> list[str]:
    """What a stage runs, wherever data and results lie."""
    data = shown_path(arguments.beauty), shown_path(arguments.ml_1m)
    plan = Plan(Path("OUT"), *data, arguments.seeds, arguments.small)
    return [shlex.join(line) for stage in plan.stages() if stage.name == name for line in stage.commands]


def is_the_same(record: dict[str, Any], name: str, arguments: argparse.Namespace) -> bool:
    """Whether a stage was run with these data, seeds and sizes; older records tell the sizes alone."""
    if record.get("small", False) != arguments.small:
        return False
    return record.get("asked", asked(name, arguments)) == asked(name, arguments)


def environment(out: Path, small: bool) -> dict[str, str]:
    """Of a command: this repository and what was installed; the CPU if small."""
    paths = [str(REPOSITORY), str((out / SITE).resolve()), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    variables["PYTHONUNBUFFERED"] = "1"
    return {**variables, "JAX_PLATFORMS": "cpu"} if small else variables


def run_limited(
    command: list[str], log: TextIO, limit_seconds: float, variables: dict[str, str]
) -> tuple[int, bool]:
    """Runs a command and all that it starts; asked to stop at the limit, and ended if it does not.

    Returns:
      Its code, and whether time ran out.
    """
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, env=variables, start_new_session=True
    )
    try:
        return process.wait(timeout=max(limit_seconds, 0.0)), False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait(), True
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        raise


def read_state(out: Path) -> dict[str, Any]:
    """What the stages came to, by name."""
    path = out / STATE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def pack(out: Path, path: Path) -> None:
    """Writes the results into one file, without checkpoints and installed packages."""

    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = Path(member.name).parts
        return None if SITE in parts[:1] or CHECKPOINTS in parts else member

    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for entry in sorted(out.iterdir()):
            if entry.resolve() != path.resolve():
                archive.add(entry, arcname=entry.name, filter=keep)


def unpack(path: Path, out: Path) -> None:
    """Puts the results of ``pack`` into a folder; files that are there already stay."""
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if not (out / member.name).is_file()]
        archive.extractall(out, members, filter="data")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
