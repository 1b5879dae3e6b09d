"""The files of a run's directory, and whether those that are there belong to a run at hand."""

import json
from pathlib import Path
from typing import Any

from jaxrec.config import Config, config_from_json, config_to_json, differences

CONFIG, DATA, CATALOGUE, COUNTS, WEIGHTS = (
    "config.json",
    "data.json",
    "catalogue",
    "item_counts.npy",
    "weights",
)
CHECKPOINTS, METRICS, EVALUATIONS = "checkpoints", "metrics.jsonl", "evaluations"
COMPLETED = "completed.json"
CARD = ("data", "fingerprint", "users", "items", "interactions", "split")
"""What every data card has."""

ELSEWHERE = {"data": None, "parallel": None}  # sections of a config that tell where a run was made, not what
DECISIVE_TRAIN_FIELDS = frozenset(
    f"train.{name}" for name in ("batch_targets", "steps_per_call", "length_buckets", "random_bits")
)
DECISIVE_EVALUATION_FIELDS = ("exclude_seen", "select_by")  # they choose the checkpoint
DECAYS_OVER_ALL_EPOCHS = ("cosine", "linear")  # the rate at a step depends on the number of epochs


def check(workdir: Path, config: Config, card: dict[str, Any]) -> None:
    """Checks that a run that a directory holds, if there is one, is of the same model and data.

    Raises:
      ValueError: it is on other data, or of another model; says how they differ.
    """
    if (workdir / DATA).exists() and (workdir / CONFIG).exists():
        _check_same(workdir, config, card)


def _check_same(workdir: Path, config: Config, card: dict[str, Any]) -> None:
    former = json.loads((workdir / DATA).read_text(encoding="utf-8"))
    if other := data_differences(former, card):
        raise ValueError(f"{workdir} holds a run on other data ({'; '.join(other)}); choose another workdir")
    former = _stored(workdir / CONFIG)
    now = config_to_json(config)
    decisive = ("model", "optimizer", "seed")
    changed = differences({key: former.get(key) for key in decisive}, {key: now[key] for key in decisive})
    changed += [
        line
        for line in differences(former.get("train"), now["train"], "train")
        if line.split(":")[0] in DECISIVE_TRAIN_FIELDS
    ]
    for name in DECISIVE_EVALUATION_FIELDS:
        there, here = (part["evaluation"][name] for part in (former, now))
        changed += differences(there, here, f"evaluation.{name}")
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


def data_differences(there: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """In what two data cards differ; one from before the positions of a split were noted says nothing of them."""
    return differences(there, {name: value for name, value in own.items() if name in {*there, *CARD}})


def check_end(workdir: Path, config: Config, evaluated_epoch: int) -> None:
    """Checks that the complete training in a directory would have had the same end with these settings.

    Args:
      workdir: the directory.
      config: the settings.
      evaluated_epoch: up to which the training was evaluated; 0 without validation, where nothing chooses.

    Raises:
      ValueError: it was evaluated at other epochs, or patience would have been over sooner.
    """
    there = _stored(workdir / CONFIG)["train"]
    former = there["evaluate_every"], there["patience"]
    now = config.train.evaluate_every, config.train.patience
    evaluations = -(-evaluated_epoch // former[0])
    if evaluations and (former[0] != now[0] or now[1] < min(former[1], evaluations)):
        names = "evaluate_every {} and patience {}"
        raise ValueError(
            f"{workdir} holds a complete training with {names.format(*former)}; with {names.format(*now)} it may have"
            " ended with other weights; repeat the former settings, or choose another workdir"
        )


def _stored(path: Path) -> dict[str, Any]:
    """A card or config as it was written; in a config, settings newer than the file stand at their defaults."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if path.name != CONFIG:
        return content
    try:
        return config_to_json(config_from_json(content))
    except ValueError:  # a setting or class that there is no more: a difference to be told, not an error
        evaluation = {**config_to_json(Config())["evaluation"], **content.get("evaluation", {})}
        return {**content, "evaluation": evaluation}


def check_free(workdir: Path, config: Config, card: dict[str, Any]) -> None:
    """Checks that a directory holds nothing of another run than this one, which has not been there yet.

    Raises:
      ValueError: it holds a run with other settings or on other data, or what a training left; says what.
    """
    found: list[str] = []
    for name, own, ignored in ((DATA, card, {}), (CONFIG, config_to_json(config), ELSEWHERE)):
        if (workdir / name).exists():
            there = _stored(workdir / name)
            compare = data_differences if name == DATA else differences
            found += compare({**there, **ignored}, {**own, **ignored})
    if found:
        raise ValueError(
            f"{workdir} holds another run ({'; '.join(found)[:500]}); choose another directory, or delete that one"
        )
    left = [name for name in (CHECKPOINTS, METRICS) if (workdir / name).exists()]
    if left:
        raise ValueError(
            f"{workdir} holds what a training left ({', '.join(left)}), and this run did not come from there; choose"
            " another directory, or delete that one"
        )


__all__ = [
    "CATALOGUE",
    "CHECKPOINTS",
    "COMPLETED",
    "CONFIG",
    "COUNTS",
    "DATA",
    "EVALUATIONS",
    "METRICS",
    "WEIGHTS",
    "check",
    "check_free",
]
