"""What several runs say together: means and spread over seeds, tests against a baseline, groups of users."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from commands import shown_path

from comparison.runs import KEPT_VALUES, RunRecord
from jaxrec.config import differences
from jaxrec.metrics.significance import bootstrap_intervals, paired_test
from jaxrec.protocol import comparable

KIND, DIGITS = "comparison", 6
GROUP_METRICS = ("hr@10", "ndcg@10")


def check_comparable(cards: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The protocol that figures share, ``chosen_by`` included where anything chose a checkpoint.

    Args:
      cards: protocol cards, by what their figures are called.

    Raises:
      ValueError: two cards differ in what must agree; says in what.
    """
    parts = {name: comparable(card) for name, card in cards.items()}
    first = next((name for name, part in parts.items() if "chosen_by" in part), next(iter(parts)))
    shared = parts[first]
    any_choice = {"chosen_by": shared["chosen_by"]} if "chosen_by" in shared else {}
    for name, part in parts.items():
        if different := differences(shared, any_choice | part):
            raise ValueError(
                f"figures of {first} and {name} cannot stand in one column, their protocols differ:"
                f" {'; '.join(different)} (there: {first}, here: {name})"
            )
    return shared


def summarise(
    records: Sequence[RunRecord], protocol: str, baseline: str, also_against: Sequence[str] = ()
) -> dict[str, Any]:
    """All models under one protocol.

    Args:
      records: runs in the order of the table; those of one model are its seeds.
      protocol: which of their results.
      baseline: name of the model to test against.
      also_against: names of further ones.

    Returns:
      ``protocol`` (what all cards share), ``baseline`` and ``models``: by name ``seeds``; ``mean`` and ``sd``
      by metric (the standard deviation with n - 1, absent for one seed); ``intervals`` by metric, 95 % bootstrap
      over users of the mean over seeds; ``paired`` by metric, the test of each user's value, averaged over
      seeds, against the baseline's (absent for the baseline); ``paired_against``, such tests by the name of each
      further model (absent without any); ``groups`` by name: ``users``, ``mean``, ``sd``.

    Raises:
      ValueError: the figures are not comparable, or the models were tested on different users.
    """
    cards = {f"{record.name} seed {record.seed}": record.results[protocol]["protocol"] for record in records}
    shared = check_comparable(cards)
    of_model: dict[str, list[RunRecord]] = {}
    for record in records:
        of_model.setdefault(record.name, []).append(record)
    values = {name: _values(runs, protocol) for name, runs in of_model.items()}
    models = {}
    for name, runs in of_model.items():
        results = [run.results[protocol] for run in runs]
        models[name] = {
            "seeds": [run.seed for run in runs],
            **_spread([{metric: v for metric, v in result.items() if _is_figure(v)} for result in results]),
            "intervals": {metric: list(ends) for metric, ends in bootstrap_intervals(values[name]).items()},
            "groups": _groups(results),
        }
        if name != baseline:
            models[name]["paired"] = _paired(values[baseline], values[name])
        if against := [base for base in also_against if base != name]:
            models[name]["paired_against"] = {base: _paired(values[base], values[name]) for base in against}
    return {"protocol": shared, "baseline": baseline, "models": models}


def _values(runs: Sequence[RunRecord], protocol: str) -> dict[str, np.ndarray]:
    """Each user's values, averaged over seeds."""
    kept = [run.values[protocol] for run in runs]
    return {
        metric: np.mean([values[metric] for values in kept], axis=0)
        for metric in KEPT_VALUES
        if all(metric in values for values in kept)
    }


def _paired(base: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    return {metric: paired_test(base[metric], own[metric])._asdict() for metric in own}


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float)


def _spread(figures: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """``mean`` and, of two or more, ``sd`` of each figure."""
    columns = {name: [one[name] for one in figures] for name in figures[0]}
    found = {"mean": {name: float(np.mean(column)) for name, column in columns.items()}}
    if len(figures) > 1:
        found["sd"] = {name: float(np.std(column, ddof=1)) for name, column in columns.items()}
    return found


def _groups(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    groups = {}
    for name, first in results[0]["groups"].items():
        figures = [{metric: result["groups"][name][metric] for metric in GROUP_METRICS} for result in results]
        groups[name] = {"users": first["users"], **_spread(figures)}
    return groups


def _without_folders(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a run, whose config names files without this machine's folders."""
    if "config" not in facts:
        return facts
    data = {
        key: shown_path(value) if isinstance(value, str) else value
        for key, value in facts["config"]["data"].items()
    }
    return {**facts, "config": {**facts["config"], "data": data}}


def content_of(
    records: Sequence[RunRecord],
    protocols: Sequence[str],
    *,
    baseline: str,
    command: str,
    run_commands: dict[tuple[str, int], str],
    timing: dict[str, Any] | None,
    also_against: Sequence[str] = (),
) -> dict[str, Any]:
    """What the JSON file of a comparison holds.

    Args:
      records: in the order of the table.
      protocols: which of their results.
      baseline: name of the model to test against.
      command: that made all this.
      run_commands: that makes one run, by name and seed.
      timing: from ``time_members``, or ``None``.
      also_against: names of further models to test against.
    """
    runs = [
        {
            "name": record.name,
            "seed": record.seed,
            "command": run_commands[record.name, record.seed],
            **_without_folders(record.facts),
            "results": {
                protocol: {key: value for key, value in record.results[protocol].items() if key != "groups"}
                for protocol in protocols
            },
        }
        for record in records
    ]
    costs: dict[str, dict[str, Any]] = {}
    validation: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(record.name for record in records):
        own = [record.facts for record in records if record.name == name]
        costs[name] = {
            "parameters": own[0]["parameters"],
            **_spread([{"training_seconds": facts["training_seconds"]} for facts in own]),
        }
        if chosen := [facts["validation"] for facts in own if "validation" in facts]:
            validation[name] = _spread(chosen)
    content = {
        "kind": KIND,
        "command": command,
        "baseline": baseline,
        "also_against": list(also_against),
        "protocols": {
            protocol: summarise(records, protocol, baseline, also_against) for protocol in protocols
        },
        "validation": validation,
        "costs": costs,
        "timing": timing,
        "runs": runs,
    }
    return _rounded(content)


def _rounded(value: Any) -> Any:
    """Figures with as many digits as they can bear, so that results stay small; configs as they are."""
    if isinstance(value, dict):
        return {key: part if key == "config" else _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


__all__ = ["GROUP_METRICS", "KIND", "check_comparable", "content_of", "summarise"]
