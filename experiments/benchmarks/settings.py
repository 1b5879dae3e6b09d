"""The flags of ``benchmark.py``, and a preset's config under them."""

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from commands import shown_path

from benchmarks.dataset import Arrays, load_arrays, missing
from jaxrec.config import Config
from jaxrec.devices.mesh import ParallelConfig
from jaxrec.loss_names import named_loss
from jaxrec.nn.attention import DotProduct
from jaxrec.presets import preset

PROGRAM = "python experiments/benchmark.py"
LIST = re.compile(r"\w[\w-]*(,\w[\w-]*)+")
BATCH_SOURCES = {"auto": "auto", "host": "grain", "device": "device"}
QUICK: dict[str, Any] = {
    "width": 16,
    "max_length": 8,
    "num_layers": 1,
    "batch_targets": (256,),
    "epochs": 1,
    "repeats": 2,
    "simulated_users": 300,
    "simulated_items": 100,
    "one_user_repeats": 20,
    "prepare_rows": (2000,),
    "softmax_items": (2000,),
    "sampled_items": (3000,),
    "softmax_widths": (16,),
    "softmax_batch": 8,
    "softmax_length": 16,
    "diffusion_users": 20,
    "peer_users": 30,
    "product_size": 256,
}
MEASURED_BY = (
    *(
        "sections",
        "presets",
        "devices",
        "model_devices",
        "modes",
        "dtypes",
        "steps",
        "batch_targets",
        "feeds",
    ),
    *("threads", "prepare_rows", "softmax_items", "sampled_items", "softmax_widths", "peers"),
)
"""Flags that choose cases and stand in each case (``batch_targets`` in those of the section training only)."""

DATA_BYTES = "data_bytes"

ABOUT_THE_RUN = ("json", "again", "debug", "quick", "trace", "peers_python", "gsasrec_folder")
"""Flags that change no figure (``quick`` only stands for others)."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Measures speed and memory of training, recommending, reading and preparing data, and of the softmax.

    python experiments/benchmark.py --data events.csv --json results/events.json

    Each case runs in a process of its own, nothing else should run on the machine. Several values of a flag
    are separated by spaces or commas. Sections whose packages are not installed are skipped. With --json, cases
    that the file holds already (same machine, versions and flags) are not measured again, so a run that was
    stopped goes on; new rows take the place of old ones of the same case and machine.

    Attributes:
      presets: names of the presets whose models are trained and recommend.
      data: the log, as for train.py: simulated, the name of a public data set, a file or a prepared folder.
      sections: what is measured: training, recommend, pipeline, prepare, softmax, diffusion, peers; all if empty.
      devices: numbers of devices to train on; on a CPU more than one are fake ones.
      model_devices: numbers of devices over which the item table is split; each must divide one of --devices.
      modes: how the training step is compiled for the devices: jit (of shard_map) or pmap.
      dtypes: types in which the models compute.
      steps: numbers of optimizer steps in one call of the compiled program; the preset's if empty.
      batch_targets: sizes of a training batch in positions, padding included; the preset's if empty. Sections other
        than training take the first one.
      feeds: where batches are made: on the host (Grain), on the device, or as train.py chooses (auto).
      max_length: how many items of a history the models read, the newest ones; 0 is the preset's.
      width: width D of the models; 0 is the preset's.
      num_layers: how many blocks the models have; 0 is the preset's.
      fused: dot-product attention mixes values and softmax in one operation (flash attention on NVIDIA GPUs).
      epochs: how many epochs of training are measured, after one that warms up.
      repeats: how often every other measurement is repeated, at most; one stops after a minute, if not sooner.
      one_user_repeats: how many recommendations for a single user are timed one by one, for the percentiles.
      bulk_users: for how many users, spread evenly over the log, lists are timed; 0 takes all users of the log.
      simulated_users: how many users the simulated data has.
      simulated_items: how many items the simulated data has.
      threads: numbers of threads of the Grain pipeline, in the section pipeline.
      prepare_rows: numbers of interactions in the logs that are read and prepared, in the section prepare.
      softmax_items: sizes of the catalogue under the full softmax, in the section softmax.
      sampled_items: sizes of the catalogue under the sampled softmax, in the section softmax.
      softmax_widths: widths D of the item table, in the section softmax.
      softmax_batch: how many sequences are in a batch, in the section softmax.
      softmax_length: how many positions each of these sequences has.
      diffusion_users: for how many users, spread evenly too, the reverse process makes lists, in the section diffusion.
      peers: other libraries that train SASRec on the same data, in the section peers.
      gsasrec_folder: folder of a clone of the gSASRec paper's code (github.com/asash/gSASRec-pytorch), which the peer
        gsasrec needs.
      peers_python: path of the Python interpreter that the peers are installed for; this one if empty.
      peer_epochs: for how many epochs a peer trains; the first one counts.
      peer_seconds: after how many seconds an epoch of a peer ends, between two steps; 0 is never.
      peer_users: for how many users, one by one, a peer makes lists; 0 is as many as --one-user-repeats.
      product_size: rows and columns of the matrix product that gives the device's peak; 0 is 2048 on a CPU, else
        8192.
      trace: folder for a profile (jax.profiler) of one call of each training step; none if empty.
      json: file (or folder) for the records; tables as Markdown and plots go beside it; none if empty.
      again: measure also what the file holds already.
      quick: everything tiny: does it run? The figures mean nothing.
      debug: show the full traceback of an error.
    """

    presets: tuple[str, ...] = ("sasrec",)
    data: str = "simulated"
    sections: tuple[str, ...] = ()
    devices: tuple[int, ...] = (1,)
    model_devices: tuple[int, ...] = (1,)
    modes: tuple[Literal["jit", "pmap"], ...] = ("jit",)
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32",)
    steps: tuple[int, ...] = ()
    batch_targets: tuple[int, ...] = ()
    feeds: tuple[Literal["auto", "host", "device"], ...] = ("auto",)
    max_length: int = 0
    width: int = 0
    num_layers: int = 0
    fused: bool = False
    epochs: int = 3
    repeats: int = 10
    one_user_repeats: int = 500
    bulk_users: int = 0
    simulated_users: int = 20_000
    simulated_items: int = 5000
    threads: tuple[int, ...] = (1,)
    prepare_rows: tuple[int, ...] = (10_000_000,)
    softmax_items: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    sampled_items: tuple[int, ...] = (10_000_000,)
    softmax_widths: tuple[int, ...] = (64, 128)
    softmax_batch: int = 128
    softmax_length: int = 50
    diffusion_users: int = 2048
    peers: tuple[Literal["rectools", "recbole", "gsasrec"], ...] = ("rectools", "recbole", "gsasrec")
    gsasrec_folder: str = ""
    peers_python: str = ""
    peer_epochs: int = 1
    peer_seconds: float = 0.0
    peer_users: int = 0
    product_size: int = 0
    trace: str = ""
    json: str = ""
    again: bool = False
    quick: bool = False
    debug: bool = False

    def check(self) -> None:
        """Raises ValueError for what cannot be measured."""
        for name in ("epochs", "repeats", "one_user_repeats", "peer_epochs", "diffusion_users"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name in self.presets:
            preset(name)
        for split in self.model_devices:
            if split < 1 or all(devices % split for devices in self.devices):
                raise ValueError(
                    f"--model-devices {split} divides none of --devices {','.join(map(str, self.devices))}; give"
                    " both"
                )

    def arrays(self) -> Arrays:
        """The data."""
        return load_arrays(self.data, users=self.simulated_users, items=self.simulated_items)

    def digest(self, case: dict[str, Any]) -> dict[str, Any]:
        """The flags that decide a case's figures and do not stand in the case: those not at their defaults.

        Beside a file's or folder's name stands its size, ``DATA_BYTES``, for another one may have the same name.
        """
        default = Settings()
        shown = {**vars(self), "data": shown_path(self.data)}
        elsewhere = {*MEASURED_BY, *ABOUT_THE_RUN} - ({"batch_targets"} - set(case))
        facts = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in shown.items()
            if name not in elsewhere and value != getattr(default, name)
        }
        size = _bytes_of(Path(self.data).expanduser())
        return {**facts, DATA_BYTES: size} if size else facts

    def config(self, case: dict[str, Any]) -> Config:
        """The config of a case: its ``preset``, and whatever of sizes, types and devices it names."""
        config = preset(case["preset"])
        sizes = {
            name: case.get(name) or getattr(self, name) for name in ("width", "max_length", "num_layers")
        }
        model = _replace_known(config.model, **sizes, dtype=case.get("dtype"))
        if self.fused and isinstance(getattr(model, "attention", None), DotProduct):
            model = dataclasses.replace(model, attention=model.attention.clone(fused=True))
        if case.get("loss"):
            model = dataclasses.replace(model, loss_function=named_loss(case["loss"]))
        loss = getattr(model, "loss_function", None)
        if loss is not None:
            model = dataclasses.replace(model, loss_function=_replace_known(loss, dtype=case.get("dtype")))
        train = _replace_known(
            config.train,
            batch_targets=case.get("batch_targets") or (*self.batch_targets, 0)[0],
            steps_per_call=case.get("steps"),
            batch_source=BATCH_SOURCES[case.get("feed", "auto")],
        )
        parallel = ParallelConfig(
            mode=case.get("mode", "jit"),
            devices=case.get("devices", 1),
            model_devices=case.get("model_devices", 1),
        )
        return dataclasses.replace(config, model=model, train=train, parallel=parallel)


def _bytes_of(path: Path) -> int:
    """Of a file, or of all files in a folder; 0 if there is no such thing."""
    files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else []
    return sum(file.stat().st_size for file in files if file.is_file())


def _replace_known(value: Any, **changes: Any) -> Any:
    """A dataclass with those changes that are given (not 0 or ``None``) and of which it has the field."""
    names = {field.name for field in dataclasses.fields(value)}
    return dataclasses.replace(
        value, **{name: change for name, change in changes.items() if change and name in names}
    )


def parse_settings(argv: list[str]) -> Settings:
    """Reads the flags; through tyro, or without it (on a bare machine) through argparse.

    Raises:
      ValueError: a value is out of range.
    """
    argv = [part for text in argv for part in (text.split(",") if re.fullmatch(LIST, text) else [text])]
    settings = _parse_plainly(argv) if missing(("tyro",)) else _parse(argv)
    settings.check()
    if not settings.quick:
        return settings
    given = {name: value for name, value in vars(settings).items() if value != getattr(Settings(), name)}
    return Settings(**{**QUICK, **given})


def _parse(argv: list[str]) -> Settings:
    import tyro

    return tyro.cli(Settings, prog=PROGRAM, args=argv)


def _parse_plainly(argv: list[str]) -> Settings:
    parser = argparse.ArgumentParser(PROGRAM, description=Settings.__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    hints = get_type_hints(Settings)
    for field in dataclasses.fields(Settings):
        flag, hint = f"--{field.name.replace('_', '-')}", hints[field.name]
        if hint is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default)
        elif get_origin(hint) is tuple:
            kind = get_args(hint)[0]
            choices = get_args(kind) if get_origin(kind) is Literal else None
            kind = str if choices else kind
            parser.add_argument(flag, nargs="*", type=kind, choices=choices, default=list(field.default))
        else:
            parser.add_argument(flag, type=hint, default=field.default)
    values = vars(parser.parse_args(argv))
    return Settings(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    )


__all__ = ["DATA_BYTES", "Settings", "parse_settings"]
