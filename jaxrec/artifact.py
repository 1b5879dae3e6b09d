"""A run on disk: config, data card, catalogue, weights, evaluations; no pickle anywhere.

::

    config.json            the resolved config
    data.json              the data card: name, fingerprint, sizes, split
    catalogue/             external item ids, titles, categories (a log without interactions)
    item_counts.npy        int64 [num_items + 1], interactions of each item in the training part
    weights/               parameters (Orbax; restores on any devices)
    checkpoints/           state, data iterator, progress of training (Orbax)
    metrics.jsonl          the course of training
    evaluations/           one JSON file a part, with its protocol card

Of several processes all call these functions; process 0 writes, and what it cannot write all of them report.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxrec import processes
from jaxrec.config import Config, config_to_json, differences, read_config
from jaxrec.recommender import Recommender
from jaxrec.sharding import available_mesh, param_shardings
from jaxrec.typing import Params

if TYPE_CHECKING:
    from jaxrec.data.interactions import Interactions
    from jaxrec.data.splits import Split

CONFIG, DATA, CATALOGUE, COUNTS, WEIGHTS = (
    "config.json",
    "data.json",
    "catalogue",
    "item_counts.npy",
    "weights",
)
CHECKPOINTS, METRICS, EVALUATIONS = "checkpoints", "metrics.jsonl", "evaluations"
DECISIVE_TRAIN_FIELDS = frozenset(
    f"train.{name}" for name in ("batch_targets", "steps_per_call", "length_buckets", "random_bits")
)
DECAYS_OVER_ALL_EPOCHS = ("cosine", "linear")  # the rate at a step depends on the number of epochs


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turns a failure to write into one sentence with the place and what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno,
            f"cannot write to {directory}: {reason}; free space or choose another workdir"
            " (what was saved before is kept)",
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically: the file is the old one or the new one, never half of it. Only process 0 does."""
    if not processes.is_main():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def evaluation_path(workdir: Path, part: str, exclude_seen: bool, num_samples: int = 1) -> Path:
    """Where the evaluation of a part lies.

    Figures with and without seen items, and of several averaged samples, have a file each.
    """
    samples = f"-{num_samples}-samples" if num_samples > 1 else ""
    seen = "seen-excluded" if exclude_seen else "seen-included"
    return workdir / EVALUATIONS / f"{part}-{seen}{samples}.json"


def data_card(split: "Split") -> dict[str, Any]:
    """What identifies a split log; equal cards mean equal data."""
    log = split.interactions
    return {
        "data": log.name,
        "fingerprint": log.fingerprint(),
        "users": log.num_users,
        "items": log.num_items,
        "interactions": log.num_interactions,
        "split": split.name,
    }


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
        if (workdir / DATA).exists() and (workdir / CONFIG).exists():
            _check_same(workdir, config, card)
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
    with writing(workdir):
        write_json(workdir / CONFIG, config_to_json(config))


def _check_same(workdir: Path, config: Config, card: dict[str, Any]) -> None:
    former = json.loads((workdir / DATA).read_text(encoding="utf-8"))
    if former != card:
        raise ValueError(
            f"{workdir} holds a run on other data ({'; '.join(differences(former, card))}); choose another workdir"
        )
    former = json.loads((workdir / CONFIG).read_text(encoding="utf-8"))
    now = config_to_json(config)
    decisive = ("model", "optimizer", "seed")
    changed = differences({key: former.get(key) for key in decisive}, {key: now[key] for key in decisive})
    changed += [
        line
        for line in differences(former.get("train"), now["train"], "train")
        if line.split(":")[0] in DECISIVE_TRAIN_FIELDS
    ]
    former_ranking, ranking = (part["evaluation"]["exclude_seen"] for part in (former, now))
    changed += differences(former_ranking, ranking, "evaluation.exclude_seen")  # it chooses the checkpoint
    if changed:
        raise ValueError(
            f"{workdir} holds a run of another configuration ({'; '.join(changed)}); choose another workdir, or repeat"
            " the former settings to go on with it"
        )
    epochs = former["train"]["epochs"]
    if config.optimizer.decay in DECAYS_OVER_ALL_EPOCHS and epochs != config.train.epochs:
        raise ValueError(
            f"{workdir} holds a run of {epochs} epochs over which the learning rate falls"
            f" (optimizer.decay={config.optimizer.decay}), and {config.train.epochs} would change its course; repeat"
            f" train.epochs={epochs} to go on with it, or choose another workdir"
        )


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
    from jaxrec.train.checkpoint import load_params

    for name in (CONFIG, DATA, CATALOGUE):
        if not (workdir / name).exists():
            raise FileNotFoundError(
                f"{workdir} holds no run: {name} is missing; train one with --workdir {workdir}"
            )
    config = read_config(workdir / CONFIG)
    data = json.loads((workdir / DATA).read_text(encoding="utf-8"))
    catalogue = Interactions.open(workdir / CATALOGUE)
    recommender = dataclasses.replace(config.model, num_items=catalogue.num_items)
    shapes = jax.eval_shape(recommender.init, jax.random.key(0))
    like = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        param_shardings(shapes, available_mesh(config.parallel)),
    )
    params = load_params(workdir / WEIGHTS, like)
    return Artifact(config, recommender, params, catalogue, np.load(workdir / COUNTS), data)


__all__ = [
    "CHECKPOINTS",
    "EVALUATIONS",
    "METRICS",
    "WEIGHTS",
    "Artifact",
    "catalogue_of",
    "data_card",
    "evaluation_path",
    "prepare",
    "read",
    "write",
    "write_json",
    "writing",
]
