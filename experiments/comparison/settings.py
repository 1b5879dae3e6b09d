"""The flags of ``compare.py``."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from arguments import config_registry
from console import script_path
from plugins import Plugins

from jaxrec.data.source import DataConfig
from jaxrec.serialization import nearest

PROGRAM = "python experiments/compare.py"


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Trains several models with several seeds on one data set or more, and sets them side by side.

    python experiments/compare.py --data events.csv --presets sasrec,vgenatt --seeds 0,1,2 --width 128

    Each run has its own directory: finished ones are not trained again, killed ones go on. The result is a
    JSON file, a Markdown table beside it, and plots. Popularity and random lists always stand in it.

    Exit code: 0 done; 130 or 143 stopped by Ctrl-C or SIGTERM, with everything saved; 1 a loss became NaN or
    infinite; 2 wrong input.

    Attributes:
      data: the log, the same for all models.
      more_data: names or files of further logs, separated by commas, filtered and split as the first; the columns of
        files are guessed (prepare.py makes any log ready). Each has results of its own, and one page shows all.
      more_items: NAME=FILE, the file of titles and categories of a further log, NAME being its file or name without
        folder and ending. Repeatable.
      presets: names of presets and variants, separated by commas.
      seeds: seeds with which each model is trained, separated by commas; fix them in advance.
      baseline: the model that the others are tested against; if empty, sasrec, or the first one.
      also_against: further models of those compared, separated by commas; the report tests all others against each.
      variant: NAME=PRESET, a further model that starts from a preset; --set NAME.... changes it. Repeatable.
      variants: JSON files of variants, {NAME: {"preset": PRESET, "set": {"model.dropout_rate": 0.1, ...}}}, separated
        by commas; in place of a preset, one may start from a variant before it.
      changes: NAME.field.path=value, a setting of one model (or of "all"), such as
        awrsr.model.attention.mechanism=simple; the value is JSON, or else text. Repeatable.
      width: width D of all models; 0 is each one's own.
      max_length: how many items of a history all models read, the newest ones; 0 is each one's own.
      epochs: epochs for which all models train, at most; 0 is each one's own.
      patience: evaluations in a row without a better validation NDCG@10 before a training stops; 0 is each one's own.
      seen_included: also report rankings in which items of the history are not left out.
      choose_seen_included: let the validation NDCG@10 of rankings in which items of the history are not left out choose
        every model's checkpoint, as the DiffuRec papers do; such runs have folders and results of their own.
      timing_rounds: rounds in which all models' training steps and recommendations are timed in turn; 0
        leaves the times out.
      workdir: directory below which the runs lie, in DIR/DATA/NAME-seedN (DIR/DATA-chosen-seen-included/... with
        --choose-seen-included).
      out: path of the results without ending: OUT.json, OUT.md and OUT-*.png. With several data sets OUT-DATA.json,
        ..., and OUT.md is the page over all.
      plugin: modules or .py files with classes of your own (jaxrec.register), imported first; separated by commas.
      cache: keep compiled programs in ~/.cache/jaxrec/xla ($JAXREC_CACHE/xla), so that the next time starts faster.
      debug: show the full traceback of an error.
    """

    data: DataConfig = DataConfig()
    more_data: Annotated[str, tyro.conf.arg(metavar="NAME_OR_PATH,NAME_OR_PATH")] = ""
    more_items: tyro.conf.UseAppendAction[list[str]] = dataclasses.field(default_factory=list)
    presets: Annotated[str, tyro.conf.arg(metavar="NAME,NAME")] = "sasrec,stosa,awrsr,vgenatt,dgenatt"
    seeds: Annotated[str, tyro.conf.arg(metavar="N,N")] = "0,1,2"
    baseline: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    also_against: Annotated[str, tyro.conf.arg(metavar="NAME,NAME")] = ""
    variant: tyro.conf.UseAppendAction[list[str]] = dataclasses.field(default_factory=list)
    variants: Annotated[str, tyro.conf.arg(metavar="FILE,FILE")] = ""
    changes: Annotated[tyro.conf.UseAppendAction[list[str]], tyro.conf.arg(name="set")] = dataclasses.field(
        default_factory=list
    )
    width: int = 0
    max_length: int = 0
    epochs: int = 0
    patience: int = 0
    seen_included: bool = False
    choose_seen_included: bool = False
    timing_rounds: int = 5
    workdir: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs/compare"
    out: Annotated[
        str,
        tyro.conf.arg(
            metavar="PATH",
            help_behavior_hint="(default: experiments/results/compare-DATA, or compare-DATA-and-DATA)",
        ),
    ] = ""
    plugin: Plugins = ""
    cache: bool = True
    debug: bool = False

    @property
    def names(self) -> list[str]:
        """The models asked for."""
        names = [name.strip() for name in self.presets.split(",") if name.strip()]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"--presets {self.presets!r}: give at least one name, and each once")
        return names

    @property
    def seed_numbers(self) -> list[int]:
        """The seeds as numbers."""
        try:
            seeds = [int(seed) for seed in self.seeds.split(",")]
        except ValueError as error:
            raise ValueError(
                f"--seeds must be whole numbers separated by commas, got {self.seeds!r}"
            ) from error
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"--seeds {self.seeds}: a seed occurs twice, and would count twice")
        return seeds

    @property
    def data_name(self) -> str:
        """What the folder and the files of the results are called after."""
        return short_name(self.data.source)

    @property
    def of_each_data(self) -> list["CompareArguments"]:
        """The arguments for each data set alone."""
        sources = [source.strip() for source in self.more_data.split(",") if source.strip()]
        items = self._items_of([short_name(source) for source in sources])
        logs = [self.data]
        for source in sources:
            name = short_name(source)
            if name in (short_name(log.source) for log in logs):
                raise ValueError(
                    f"--more-data {source}: another data set is called {name} too, and their runs would lie in one"
                    " folder; rename one"
                )
            own = {"source": source, "items": items.get(name, "")}
            guessed = {"user": "", "item": "", "time": "", "items_id": ""}
            logs.append(dataclasses.replace(self.data, **own, **guessed))
        alone = [dataclasses.replace(self, data=log, more_data="", more_items=[]) for log in logs]
        if len(alone) == 1 or not self.out:
            return alone
        out = self.out.removesuffix(".json")
        return [dataclasses.replace(one, out=f"{out}-{one.data_name}") for one in alone]

    def _items_of(self, names: list[str]) -> dict[str, str]:
        """Files of items by the name of their data set."""
        files = {}
        for text in self.more_items:
            name, equals, file = (part.strip() for part in text.partition("="))
            if not equals:
                raise ValueError(f"--more-items {text}: write NAME=FILE")
            if name not in names:
                raise ValueError(
                    f"--more-items {text}: no data set of --more-data is called {name!r}{nearest(name, names)}"
                    " (--data.items is for that of --data)"
                )
            files[name] = file
        return files

    @property
    def overview_path(self) -> Path:
        """The page over all data sets."""
        names = "-and-".join(one.study_name for one in self.of_each_data)
        chosen = self.out or script_path(f"results/compare-{names}")
        return Path(f"{chosen.removesuffix('.json')}.md")

    @property
    def study_name(self) -> str:
        """``data_name``, and the choice of checkpoints where it is not the usual one."""
        return f"{self.data_name}-chosen-seen-included" if self.choose_seen_included else self.data_name

    @property
    def runs_folder(self) -> Path:
        """Where the runs lie; those whose checkpoints were chosen in another way do not."""
        return Path(self.workdir) / self.study_name

    @property
    def out_path(self) -> Path:
        """The results' path without a suffix."""
        chosen = self.out or script_path(f"results/compare-{self.study_name}")
        return Path(chosen.removesuffix(".json"))


def short_name(source: str) -> str:
    """A data set's name, or its file without folder and ending."""
    return Path(source).name.split(".")[0] or "data"


def parse_compare_arguments(argv: list[str]) -> CompareArguments:
    """Reads the flags; leaves with code 0 after ``--help`` and 2 on a flag that is unknown.

    Raises:
      ValueError: a value is out of range.
    """
    arguments = tyro.cli(
        CompareArguments, prog=PROGRAM, args=argv, default=CompareArguments(), registry=config_registry()
    )
    for name in ("width", "max_length", "epochs", "patience", "timing_rounds"):
        if getattr(arguments, name) < 0:
            raise ValueError(
                f"--{name.replace('_', '-')} must not be negative, got {getattr(arguments, name)}"
            )
    return arguments


__all__ = ["PROGRAM", "CompareArguments", "parse_compare_arguments"]
