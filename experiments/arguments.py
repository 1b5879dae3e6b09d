"""Command-line flags of a run: a config's dataclasses through tyro, on top of a preset, a file or a run."""

import argparse
import dataclasses
import functools
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro
from plugins import Plugins
from run_data import AS_GIVEN, check_source
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from jaxrec.artifact_checks import CONFIG
from jaxrec.config import Config, read_config
from jaxrec.data.source import SIMULATED, DataConfig
from jaxrec.devices.distributed import DistributedConfig
from jaxrec.loss_names import LOSS_LINES, named_loss
from jaxrec.presets import PRESETS, preset
from jaxrec.serialization import config_fields

DEMO_PRESET, DEFAULT_PRESET = "vgenatt-demo", "vgenatt"
FILLED_FROM_DATA = ("num_items",)
EVERYDAY_FIELDS = frozenset(
    {
        *("config", "preset", "workdir", "config_file", "loss", "plugin", "cache", "debug", "seed"),
        *("model", "data", "train", "optimizer", "parallel", "evaluation"),
        *("source", "user", "item", "time", "items", "items_id", "min_user", "min_item", "split"),
        *("max_length", "width", "num_layers", "num_heads", "dropout_rate"),
        *("epochs", "patience", "batch_targets", "learning_rate", "mode", "devices", "exclude_seen"),
    }
)
"""Fields that ``--help`` shows; ``--help-all`` shows all."""


AsInRun = Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: as in the run)")]
"""A flag whose default is taken from the run's config before the flags are read."""


def _metavar(names: Iterable[str], default: str | None = None) -> Any:
    return tyro.conf.arg(metavar="{" + ",".join(names) + "}", help_behavior_hint=default)


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """Trains a recommender, shows its metrics beside popularity, and leaves a run directory.

    Without any argument it trains on embedded, simulated data, in minutes on a laptop. Typing the same
    command again goes on where training stopped, or shows the results if it is complete.

    python experiments/train.py --preset sasrec --data events.csv --workdir runs/mine --train.epochs 50

    Exit code: 0 done; 130 or 143 stopped by Ctrl-C or SIGTERM, with everything saved; 1 the loss became
    NaN or infinite; 2 wrong input.

    Attributes:
      config: what decides the run.
      preset: where the settings start from. If not given, vgenatt, or vgenatt-demo on simulated data.
      config_file: start from the settings in this JSON file (such as a run's config.json) instead of a preset's.
      workdir: directory of the run. If it holds a run already and neither --preset nor --config is given, its
        settings are taken.
      loss: the loss that is minimised, where the model leaves the choice; --help-all shows its flags.
      plugin: modules or .py files with classes of your own (jaxrec.register), imported first; separated by commas.
      cache: keep compiled programs in ~/.cache/jaxrec/xla ($JAXREC_CACHE/xla), so that the next time starts faster.
      debug: show the full traceback of an error.
      distributed: several processes that train one model, each started with this command.
    """

    config: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)
    preset: Annotated[str, _metavar(PRESETS)] = ""
    config_file: Annotated[str, tyro.conf.arg(name="config", metavar="FILE")] = ""
    workdir: Annotated[
        str, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/PRESET-DATA-seedN)")
    ] = ""
    loss: Annotated[str, _metavar(LOSS_LINES, "(default: as in the preset)")] = ""
    plugin: Plugins = ""
    cache: bool = True
    debug: bool = False
    distributed: DistributedConfig = DistributedConfig()


def parse_train_arguments(argv: list[str]) -> TrainArguments:
    """Reads the flags of ``train.py``; leaves with code 0 after ``--help`` and 2 on a flag that is unknown.

    Raises:
      ValueError: there is no such preset or loss, both preset and file are given, a value is out of range, or nothing
        says where the data is.
      OSError: a config file cannot be read.
    """
    given = _peek(argv)
    base, name = _base_config(given.preset, given.config, given.workdir, given.data)
    without_data = base.data is None
    if without_data:
        base = dataclasses.replace(base, data=AS_GIVEN)
    if given.loss:
        base = _with_loss(base, given.loss)
    default = TrainArguments(config=base, preset=name)
    show_all = "--help-all" in argv
    argv = ["--help" if argument == "--help-all" else argument for argument in argv]
    registry = config_registry(brief=("--help" in argv or "-h" in argv) and not show_all)
    arguments = tyro.cli(
        TrainArguments,
        prog="python experiments/train.py",
        description=_description(name or given.config or given.workdir, show_all=show_all),
        args=argv,
        default=default,
        registry=registry,
    )
    if without_data:
        check_source(arguments.config.data, Path(given.config or Path(given.workdir) / CONFIG))
    if arguments.workdir:
        return arguments
    return dataclasses.replace(arguments, workdir=str(default_workdir(name, arguments.config)))


def takes_default_preset(argv: list[str]) -> bool:
    """Whether nothing in the flags of ``train.py`` says where the settings start from."""
    given = _peek(argv)
    return not (given.preset or given.config or _is_run(given.workdir))


def _is_run(workdir: str) -> bool:
    return bool(workdir) and (Path(workdir) / CONFIG).exists()


def _peek(argv: list[str]) -> argparse.Namespace:
    """The flags that decide what the others change."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--preset", "--config", "--workdir", "--loss"):
        peek.add_argument(flag, default="")
    peek.add_argument("--data", "--data.source", default="")
    return peek.parse_known_args(argv)[0]


def _description(start: str, *, show_all: bool) -> str:
    """The top of the help: what the script does, after which flags and whose defaults this page shows."""
    text = inspect.cleandoc(TrainArguments.__doc__).partition("\n\nAttributes:")[0]
    summary, _, rest = text.partition("\n\n")
    flags = (
        "All flags are shown."
        if show_all
        else "The flags of every day are shown; --help-all shows every flag."
    )
    several = (
        " Those by which several processes train one model begin with --distributed." if not show_all else ""
    )
    defaults = f"The defaults are those of {start}; --preset NAME --help shows those of another preset."
    return f"{summary}\n\n{flags}{several} {defaults}\n\n{rest}"


def _base_config(preset_name: str, config_file: str, workdir: str, source: str) -> tuple[Config, str]:
    """The config that the flags change, and what the run is called after."""
    if preset_name and config_file:
        raise ValueError(f"--preset {preset_name} and --config {config_file} exclude each other; give one")
    if config_file:
        return read_config(config_file), _name_of(Path(config_file))
    if not preset_name and _is_run(workdir):
        return read_config(Path(workdir) / CONFIG), ""
    name = preset_name or (DEMO_PRESET if source in ("", SIMULATED) else DEFAULT_PRESET)
    return preset(name), name


def _name_of(config_file: Path) -> str:
    """What a run is called after whose config is a file: after that of another run, its directory, without the seed."""
    if config_file.name != CONFIG:
        return config_file.stem
    return re.sub(r"-seed\d+$", "", config_file.resolve().parent.name) or config_file.stem


def seen_excluded_in_run(argv: list[str]) -> bool:
    """What a script's ``--exclude-seen`` is if not given: the setting of the run that ``--workdir`` names."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--workdir", default="")
    stored = Path(peek.parse_known_args(argv)[0].workdir) / CONFIG
    return read_config(stored).evaluation.exclude_seen if stored.is_file() else True


def _with_loss(config: Config, name: str) -> Config:
    loss = named_loss(name)
    if "loss_function" not in (field.name for field in dataclasses.fields(config.model)):
        raise ValueError(f"--loss: a {type(config.model).__name__} has no choice of loss")
    model = dataclasses.replace(config.model, loss_function=loss)
    return dataclasses.replace(config, model=model)


def default_workdir(name: str, config: Config) -> Path:
    """``runs/<preset>-<data>-seed<seed>``."""
    data = Path(config.data.source).name.split(".")[0] or "data"
    return Path("runs") / f"{name}-{data}-seed{config.seed}"


def config_registry(*, brief: bool = False) -> ConstructorRegistry:
    """Rules that make flags of a config: each field of the type that its default has, no subcommands.

    Fields that are filled in (``num_items``, those of a Linen module's owner) have no flag, and
    ``--data`` is short for ``--data.source``.

    Args:
      brief: leaves out all but the fields of every day.
    """
    registry = ConstructorRegistry()

    @registry.struct_rule
    def config_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not dataclasses.is_dataclass(info.type) or not dataclasses.is_dataclass(info.default):
            return None
        cls = type(info.default)
        fixed = {}
        fields = []
        hints = get_type_hints(cls, include_extras=True)
        for field in config_fields(cls):
            value = getattr(info.default, field.name)
            hidden = field.name in FILLED_FROM_DATA or (brief and field.name not in EVERYDAY_FIELDS)
            if hidden or value == ():
                fixed[field.name] = value
                continue
            kind = type(value) if dataclasses.is_dataclass(value) else hints[field.name]
            fields.append(
                StructFieldSpec(
                    name=field.name,
                    type=_annotate(cls, field.name, kind, hints[field.name]),
                    default=value,
                    helptext=_help_text(cls, field.name),
                )
            )
        return StructConstructorSpec(functools.partial(cls, **fixed), tuple(fields))

    return registry


def _annotate(cls: type, name: str, kind: Any, hint: Any) -> Any:
    """The type that tyro sees for a field."""
    if cls is DataConfig and name == "source":
        return Annotated[
            str,
            tyro.conf.arg(name="data", prefix_name=False, aliases=["--data.source"], metavar="NAME_OR_PATH"),
        ]
    return hint if cls is TrainArguments else kind


def _help_text(cls: type, name: str) -> str | None:
    """What ``--help`` says of a field; of the loss, also what each name stands for."""
    text = attribute_docs(cls).get(name)
    if cls is not TrainArguments or name != "loss":
        return text
    return "\n".join([text, *(f"{loss}: {line}." for loss, line in LOSS_LINES.items())])


@functools.cache
def attribute_docs(cls: type) -> dict[str, str]:
    """What the ``Attributes:`` sections of a class and its bases say of each attribute, as one line."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        docs |= _attribute_docs(base.__doc__ or "")
    return docs


def _attribute_docs(docstring: str) -> dict[str, str]:
    docs: dict[str, str] = {}
    lines = docstring.expandtabs().splitlines()
    inside, indent, name = False, 0, ""
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.strip() == "Attributes:":
            inside, indent = True, depth + 2
        elif inside and line.strip() and depth < indent:
            inside = False
        elif inside and depth == indent and ":" in line:
            name, _, text = line.strip().partition(":")
            docs[name] = text.strip()
        elif inside and line.strip():
            docs[name] += " " + line.strip()
    return {name: text.replace("``", "") for name, text in docs.items()}


__all__ = [
    "DEFAULT_PRESET",
    "DEMO_PRESET",
    "AsInRun",
    "TrainArguments",
    "attribute_docs",
    "config_registry",
    "default_workdir",
    "parse_train_arguments",
    "seen_excluded_in_run",
    "takes_default_preset",
]
