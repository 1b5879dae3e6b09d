"""The flags of ``compare.py``."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from arguments import config_registry
from console import script_path

from jaxrec.data.source import DataConfig

PROGRAM = "python experiments/compare.py"


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Trains several models with several seeds on one split, and sets them side by side.

    python experiments/compare.py --data events.csv --presets sasrec,vgenatt --seeds 0,1,2 --width 128

    Each run has its own directory: finished ones are not trained again, killed ones go on. The result is a
    JSON file, a Markdown table beside it, and plots. Popularity and random lists always stand in it.

    Exit code: 0 done; 130 or 143 stopped by Ctrl-C or SIGTERM, with everything saved; 1 a loss became NaN or
    infinite; 2 wrong input.

    Attributes:
      data: the log, the same for all models.
      presets: names of presets and variants, separated by commas.
      seeds: separated by commas; fix them in advance.
      baseline: the model that the others are tested against. Default: sasrec, or the first one.
      also_against: further models of those compared, separated by commas; the report tests all others against each.
      variant: NAME=PRESET, a further model that starts from a preset; --set NAME.... changes it. Repeatable.
      variants: JSON files of variants, {NAME: {"preset": PRESET, "set": {"model.dropout_rate": 0.1, ...}}}, separated
        by commas; in place of a preset, one may start from a variant before it.
      changes: NAME.field.path=value, a setting of one model (or of "all"), such as
        awrsr.model.attention.mechanism=simple; the value is JSON, or else text. Repeatable.
      width: D of all models; 0 is each one's own.
      max_length: newest items that all models read; 0 is each one's own.
      epochs: of all models, at most; 0 is each one's own.
      patience: evaluations without a better validation NDCG@10 before stopping; 0 is each one's own.
      seen_included: also report rankings in which items of the history are not left out.
      choose_seen_included: let the validation NDCG@10 of rankings in which items of the history are not left out choose
        every model's checkpoint, as the DiffuRec papers do; such runs have folders and results of their own.
      timing_rounds: rounds in which all models' training steps and recommendations are timed in turn; 0
        leaves the times out.
      workdir: runs lie below it, in DIR/DATA/NAME-seedN (DIR/DATA-chosen-seen-included/...).
      out: the results are OUT.json, OUT.md and OUT-*.png. Default: experiments/results/compare-DATA.
      cache: keep compiled programs in ~/.cache/jaxrec/xla ($JAXREC_CACHE/xla).
      debug: show the full traceback of an error.
    """

    data: DataConfig = DataConfig()
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
    out: Annotated[str, tyro.conf.arg(metavar="PATH")] = ""
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
        return Path(self.data.source).name.split(".")[0] or "data"

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
