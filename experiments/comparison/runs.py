"""One run of a comparison: trained (or gone on with, or only read), evaluated, and kept in its directory."""

import dataclasses
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import jaxrec
from comparison.baselines import RandomRecommender
from comparison.members import Member
from comparison.source import SourceNote, source_hash
from jaxrec import artifact
from jaxrec.config import Config, config_from_json, config_to_json
from jaxrec.evaluation import as_dict, evaluate_split, split_categories
from jaxrec.protocol import ProtocolCard, chosen_by
from jaxrec.run import Run
from jaxrec.train.logging import Record, Reporter, Several, Silent
from jaxrec.train.options import TrainConfig
from jaxrec.train.stopping import StopRequest

if TYPE_CHECKING:
    from jaxrec.data.splits import Split

EXCLUDED, INCLUDED = "seen-excluded", "seen-included"
FOLDER = "comparison"
KEPT_VALUES = ("hr@10", "ndcg@10", "cc@10")
"""Metrics of which each user's value is kept, for paired tests."""


@dataclasses.dataclass(frozen=True, eq=False)
class RunRecord:
    """What a comparison knows of one run.

    Attributes:
      name: of the model.
      seed: of the run.
      facts: ``config``, ``parameters``, ``training_seconds``, ``sources`` (hashes of what trained and evaluated it;
        absent in older runs), ``categories`` (a hash; likewise), and ``validation`` where it was chosen by that;
        JSON-able.
      results: by protocol: metrics flat, ``groups``, ``protocol``; JSON-able.
      values: by protocol and metric, ``[n]`` float64: each test user's value.
    """

    name: str
    seed: int
    facts: dict[str, Any]
    results: dict[str, dict[str, Any]]
    values: dict[str, dict[str, np.ndarray]]


class StopRelay(Silent):
    """Passes a signal that came before the training loop listened on to the loop."""

    def __init__(self, stop: StopRequest):
        self.stop, self.told = stop, False

    def steps(self, record: Record) -> None:
        if self.stop.is_set() and not self.told:
            self.told = True
            signal.raise_signal(self.stop.number)


def run_directory(workdir: Path, member: Member, seed: int) -> Path:
    """Where a run lies."""
    return workdir / f"{member.name}-seed{seed}"


def read_record(
    directory: Path, member: Member, seed: int, split: "Split", protocols: tuple[str, ...]
) -> RunRecord | None:
    """The record of a run that was finished before; ``None`` if it was not, or with other settings or categories."""
    results, values, facts = {}, {}, {}
    config, categories = config_to_json(member.with_seed(seed)), categories_hash(split)
    for protocol in protocols:
        path = _record_path(directory, protocol)
        if not path.exists():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        card = artifact.data_card(split)
        former = record["result"]["protocol"]
        same_data = all(former.get(name) == value for name, value in card.items())
        if deciding_settings(record["facts"]["config"]) != deciding_settings(config) or not same_data:
            return None
        facts, results[protocol] = record["facts"], record["result"]
        with np.load(path.with_suffix(".npz")) as arrays:
            values[protocol] = dict(arrays)
        had_some = "cc@10" in values[protocol]
        if facts.get("categories", categories) != categories or had_some != (categories is not None):
            return None
    facts = best_validation(directory, member.config.train) | facts  # those kept with the run first
    return RunRecord(member.name, seed, facts, results, values)


def best_validation(directory: Path, train: TrainConfig) -> dict[str, Any]:
    """The figure by which a run's checkpoint was chosen, from the course of its training.

    Args:
      directory: of the run.
      train: what the run was trained by; what a longer training left later is not read.

    Returns:
      ``{"validation": {"ndcg@10": ..., "epoch": ...}}``; nothing for a run without validation.
    """
    path = directory / artifact.METRICS
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("}\n")]  # a kill may cut the last one
    evaluations = [record for record in records if record["split"] == "validation"]
    evaluations = evaluations[: -(-train.epochs // train.evaluate_every)]
    chosen = [record for record in evaluations if record["best"]]
    return {"validation": {name: chosen[-1][name] for name in ("ndcg@10", "epoch")}} if chosen else {}


def categories_hash(split: "Split") -> str | None:
    """What tells the categories of a log's items from others, of which category coverage is made; ``None`` without."""
    categories = split_categories(split)
    return None if categories is None else hashlib.sha256(categories.rows.tobytes()).hexdigest()[:12]


def deciding_settings(config: dict[str, Any]) -> dict[str, Any] | None:
    """What decides a run, with settings that are newer than the record at their defaults; ``None`` if unreadable.

    The data may lie elsewhere now; its card says whether it is the same. Devices and the users of a batch decide
    how fast it is evaluated.
    """
    try:
        complete = config_to_json(config_from_json(config))
    except ValueError:
        return None
    del complete["evaluation"]["batch_size"]
    return {name: value for name, value in complete.items() if name not in ("data", "parallel")}


def make_record(
    directory: Path,
    member: Member,
    seed: int,
    split: "Split",
    protocols: tuple[str, ...],
    *,
    reporter: Reporter,
    stop: StopRequest,
) -> RunRecord | None:
    """Trains a run and evaluates it; ``None`` if a signal stopped it first, with the state saved.

    Raises:
      ValueError: the directory holds a run of another configuration or on other data.
      FloatingPointError: the loss is not finite.
      OSError: the directory cannot be written to.
    """
    config, source = member.with_seed(seed), SourceNote(directory / FOLDER)
    if isinstance(config.model, RandomRecommender):
        run = _random_run(config, split)
    else:
        run = jaxrec.fit(config, split, directory, reporter=Several(source, StopRelay(stop), reporter))
    if run.interrupted:
        stop.number = run.interrupted
        stop.set()
        return None
    facts = {
        "config": config_to_json(config),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.params)),
        "training_seconds": run.training_seconds,
        "sources": list(dict.fromkeys([*source.read(), source_hash()])),
        "categories": categories_hash(split),
        **best_validation(directory, config.train),
    }
    results, values = {}, {}
    for protocol in protocols:
        results[protocol], values[protocol] = _evaluate(run, split, member, protocol == EXCLUDED)
        with artifact.writing(directory):
            _write(_record_path(directory, protocol), facts, results[protocol], values[protocol])
    return RunRecord(member.name, seed, facts, results, values)


def _random_run(config: Config, split: "Split") -> Run:
    log = split.interactions
    recommender = dataclasses.replace(config.model, num_items=log.num_items)
    return Run(
        config=config,
        recommender=recommender,
        params=recommender.init(jax.random.key(config.seed)),
        catalogue=artifact.catalogue_of(log),
        item_counts=split.train_item_counts(),
        data=artifact.data_card(split),
        split=split,
    )


def _evaluate(
    run: Run, split: "Split", member: Member, exclude_seen: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metrics with their protocol card, and each user's values."""
    evaluation = evaluate_split(
        run.recommender,
        run.params,
        split,
        "test",
        exclude_seen=exclude_seen,
        key=run.key,
        batch_size=run.config.evaluation.batch_size,
    )
    choice = chosen_by(
        trained=member.trained,
        validated=len(split.validation) > 0,
        exclude_seen=run.config.evaluation.exclude_seen,
    )
    card = ProtocolCard(
        **run.data, part="test", exclude_seen=exclude_seen, seed=run.config.seed, chosen_by=choice
    )
    result = {**as_dict(evaluation, intervals=False), "protocol": card.as_dict()}
    values = {name: evaluation.per_user[name] for name in KEPT_VALUES if name in evaluation.per_user}
    return result, values


def _record_path(directory: Path, protocol: str) -> Path:
    return directory / FOLDER / f"{protocol}.json"


def _write(path: Path, facts: dict[str, Any], result: dict[str, Any], values: dict[str, np.ndarray]) -> None:
    """The values first: where the JSON file is, the record is whole."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".npz.partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **values)
    os.replace(partial, path.with_suffix(".npz"))
    artifact.write_json(path, {"facts": facts, "result": result})


__all__ = [
    "EXCLUDED",
    "INCLUDED",
    "KEPT_VALUES",
    "RunRecord",
    "StopRelay",
    "best_validation",
    "categories_hash",
    "deciding_settings",
    "make_record",
    "read_record",
    "run_directory",
]
