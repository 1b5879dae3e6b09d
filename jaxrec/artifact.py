"""A run on disk: config, data card, catalogue, weights, evaluations; no pickle anywhere.

::

    config.json            the resolved config
    data.json              the data card: name, fingerprint, sizes, split
    catalogue/             external item ids, titles, categories (a log without interactions)
    item_counts.npy        int64 [num_items + 1], interactions of each item in the training part
    weights/               parameters (Orbax; restores on any devices)
    checkpoints/           state, data iterator, progress of training (Orbax)
    metrics.jsonl          the course of training
    completed.json         how far the training of these weights went; missing while one is under way
    training.lock          held while one is under way
    evaluations/           one JSON file a part, with its protocol card

Of several processes all call these functions; process 0 writes, and what it cannot write all of them report.
"""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxrec.artifact_checks import (
    CATALOGUE,
    CHECKPOINTS,
    COMPLETED,
    CONFIG,
    COUNTS,
    DATA,
    EVALUATIONS,
    METRICS,
    WEIGHTS,
    check,
    check_end,
    check_free,
    data_differences,
)
from jaxrec.config import Config, config_to_json, read_config
from jaxrec.devices import processes
from jaxrec.devices.mesh import ParallelConfig
from jaxrec.devices.sharding import available_mesh, param_shardings
from jaxrec.files import write_json, writing
from jaxrec.recommender import Recommender
from jaxrec.typing import Params

if TYPE_CHECKING:
    from jaxrec.data.interactions import Interactions
    from jaxrec.data.splits import Split


def evaluation_path(workdir: Path, part: str, exclude_seen: bool, num_samples: int = 1) -> Path:
    """Where the evaluation of a part lies.

    Figures with and without seen items, and of several averaged samples, have a file each.
    """
    samples = f"-{num_samples}-samples" if num_samples > 1 else ""
    seen = "seen-excluded" if exclude_seen else "seen-included"
    return workdir / EVALUATIONS / f"{part}-{seen}{samples}.json"


def keep_evaluation(workdir: Path, result: dict[str, Any]) -> Path | None:
    """Writes what ``Run.evaluate`` gives; where the directory takes no files warns, and returns ``None``."""
    card = result["protocol"]
    path = evaluation_path(workdir, card["part"], card["exclude_seen"], card["num_samples"])
    try:
        write_json(path, result)
    except OSError as error:
        warnings.warn(
            f"the evaluation could not be kept in {path} ({error.strerror or error}); its result is returned only",
            stacklevel=3,
        )
        return None
    return path


def data_card(split: "Split") -> dict[str, Any]:
    """What identifies a split log: equal cards mean equal sequences, parted alike.

    Of a split that does not follow from the sequences the card holds a hash, ``positions``.
    """
    log = split.interactions
    card = {
        "data": log.name,
        "fingerprint": log.fingerprint(),
        "users": log.num_users,
        "items": log.num_items,
        "interactions": log.num_interactions,
        "split": split.name,
    }
    positions = split.fingerprint()
    return card if positions is None else {**card, "positions": positions}


def catalogue_of(log: "Interactions") -> "Interactions":
    """The log without its interactions: item ids and metadata."""
    from jaxrec.data.identifiers import IdMap

    return dataclasses.replace(
        log, items=np.zeros(0, np.int32), offsets=np.zeros(1, np.int64), users=IdMap.range(0), times=None
    )


def prepare(workdir: Path, config: Config, split: "Split", item_counts: np.ndarray) -> None:
    """Makes a run's directory, or checks that the one there is of the same model and data (and leaves it as it is).

    Raises:
      ValueError: it holds a run on other data, or of another model; says how they differ.
      OSError: it cannot be written to.
    """
    card = data_card(split)

    def check_and_write() -> None:
        check(workdir, config, card)
        with writing(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            if not (workdir / CONFIG).exists():
                write_json(workdir / CONFIG, config_to_json(config))
            if not (workdir / DATA).exists():
                catalogue_of(split.interactions).save(workdir / CATALOGUE)
                np.save(workdir / COUNTS, item_counts)
            write_json(workdir / DATA, card)

    processes.on_main(check_and_write)


def keep_config(workdir: Path, config: Config) -> None:
    """Takes over what may differ when a run goes on, such as more epochs."""

    def write() -> None:
        with writing(workdir):
            (workdir / COMPLETED).unlink(missing_ok=True)
            write_json(workdir / CONFIG, config_to_json(config))

    processes.on_main(write)


def renew_metadata(workdir: Path, config: Config, log: "Interactions") -> None:
    """Takes over titles and categories that a complete run's log did not have, or others.

    A log without any leaves those that the run has. Where the directory takes no files warns.
    """
    from jaxrec.data.interactions import Interactions

    if log.metadata is None:
        return
    catalogue = Interactions.open(workdir / CATALOGUE)
    old, renewed = catalogue.metadata, catalogue.with_metadata(log.metadata)
    new = renewed.metadata
    if old is not None and old.titles.equals(new.titles) and old.categories.equals(new.categories):
        return
    stored = json.loads((workdir / CONFIG).read_text(encoding="utf-8"))
    try:
        renewed.save(workdir / CATALOGUE)
        write_json(workdir / CONFIG, {**stored, "data": config_to_json(config)["data"]})
    except OSError as error:
        warnings.warn(
            f"titles and categories could not be kept in {workdir} ({error.strerror or error})", stacklevel=3
        )


def completed(workdir: Path) -> dict[str, Any] | None:
    """The record of the training that the weights came from; ``None`` if there is none that went to its end."""
    try:
        record = json.loads((workdir / COMPLETED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def complete(workdir: Path, record: dict[str, Any]) -> None:
    """Notes that the weights are those of a training that went to its end, after they are written."""

    def write() -> None:
        with writing(workdir):
            write_json(workdir / COMPLETED, record)

    processes.on_main(write)


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What a run's directory holds, read back; fields as in ``jaxrec.run.Run``."""

    config: Config
    recommender: Recommender
    params: Params
    catalogue: "Interactions"
    item_counts: np.ndarray
    data: dict[str, Any]


def write(
    workdir: Path,
    config: Config,
    params: Params,
    catalogue: "Interactions",
    item_counts: np.ndarray,
    data: dict,
) -> None:
    """Writes all that recommending needs; what training leaves besides is not touched."""
    from jaxrec.train.checkpoint import save_params

    def write_facts() -> None:
        (workdir / COMPLETED).unlink(missing_ok=True)
        write_json(workdir / CONFIG, config_to_json(config))
        catalogue_of(catalogue).save(workdir / CATALOGUE)
        np.save(workdir / COUNTS, item_counts)
        write_json(workdir / DATA, data)

    with writing(workdir):
        processes.on_main(write_facts)
        save_params(workdir / WEIGHTS, params)


def read(workdir: Path) -> Artifact:
    """Reads a run's directory onto the devices of its config that there are, item tables split as in training.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: something in it does not fit together; says what.
    """
    from jaxrec.data.interactions import Interactions

    for name in (CONFIG, DATA, CATALOGUE):
        if not (workdir / name).exists():
            raise FileNotFoundError(
                f"{workdir} holds no run: {name} is missing; train one with --workdir {workdir}"
            )
    config = read_config(workdir / CONFIG)
    data = json.loads((workdir / DATA).read_text(encoding="utf-8"))
    catalogue = Interactions.open(workdir / CATALOGUE)
    recommender = dataclasses.replace(config.model, num_items=catalogue.num_items)
    params = read_params(workdir, recommender, config.parallel)
    return Artifact(config, recommender, params, catalogue, np.load(workdir / COUNTS), data)


def read_params(workdir: Path, recommender: Recommender, parallel: ParallelConfig) -> Params:
    """The weights of a run, on the devices of ``parallel`` that there are.

    Raises:
      ValueError: they are missing, damaged or of another model.
    """
    from jaxrec.train.checkpoint import load_params

    shapes = jax.eval_shape(recommender.init, jax.random.key(0))
    like = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        param_shardings(shapes, available_mesh(parallel)),
    )
    return load_params(workdir / WEIGHTS, like)


__all__ = [
    "CHECKPOINTS",
    "EVALUATIONS",
    "METRICS",
    "WEIGHTS",
    "Artifact",
    "catalogue_of",
    "check",
    "check_end",
    "check_free",
    "complete",
    "completed",
    "data_card",
    "data_differences",
    "evaluation_path",
    "keep_config",
    "keep_evaluation",
    "prepare",
    "read",
    "read_params",
    "renew_metadata",
    "write",
    "write_json",
    "writing",
]
