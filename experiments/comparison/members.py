"""Which models are compared: presets, variants of them, and the two baselines that learn nothing."""

import dataclasses
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from comparison.baselines import RandomRecommender
from comparison.settings import CompareArguments
from jaxrec.config import Config, EvaluationConfig, config_from_json, config_to_json
from jaxrec.models.popularity import PopularityRecommender
from jaxrec.presets import PRESETS, change_setting, preset
from jaxrec.serialization import nearest

POPULARITY, RANDOM, ALL = "popularity", "random", "all"
NAME = re.compile(r"[\w-]+")
CHANGE = re.compile(r"(?P<name>[\w-]+)\.(?P<path>[\w.]+)=(?P<value>.*)", re.DOTALL)
SHARED = {
    "data": "--data",
    "seed": "--seeds",
    "evaluation.exclude_seen": "--choose-seen-included",
}
"""Settings that all models of a comparison have in common, and the flags that decide them."""
FIXED = ("evaluation.cutoffs", "evaluation.select_by")
"""Settings that no model of a comparison can have otherwise: tables, tests and plots are made of these."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A model by name: a preset with changes.

    Attributes:
      preset: where it starts from.
      changes: new values by path into the config's JSON form, such as ``model.attention.mechanism``.
    """

    preset: str
    changes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Member:
    """A model of the comparison.

    Attributes:
      name: in tables and directories.
      config: for every seed (its own seed is replaced).
    """

    name: str
    config: Config

    @property
    def trained(self) -> bool:
        """Whether it learns by gradient; popularity and random do not."""
        return not isinstance(self.config.model, PopularityRecommender | RandomRecommender)

    @property
    def seeded(self) -> bool:
        """Whether another seed gives another result."""
        return not isinstance(self.config.model, PopularityRecommender)

    def with_seed(self, seed: int) -> Config:
        """The config of one run."""
        return dataclasses.replace(self.config, seed=seed)


def make_members(arguments: CompareArguments) -> list[Member]:
    """Random, popularity, then the models asked for, in that order.

    Raises:
      ValueError: a name, path or value is unknown, or a change concerns what all models share.
      OSError: the file of variants cannot be read.
    """
    variants = _variants(arguments)
    names = [name for name in arguments.names if name not in (POPULARITY, RANDOM)]
    for name in names:
        if name not in PRESETS and name not in variants:
            raise ValueError(
                f"--presets: there is no preset or variant {name!r}{nearest(name, {*PRESETS, *variants})}"
            )
    changes = [_change(text, names) for text in arguments.changes]
    evaluation = EvaluationConfig(exclude_seen=not arguments.choose_seen_included)
    members = [
        Member(RANDOM, Config(model=RandomRecommender(), data=arguments.data, evaluation=evaluation)),
        Member(POPULARITY, preset(POPULARITY, data=arguments.data, evaluation=evaluation)),
    ]
    for name in names:
        variant = variants.get(name, Variant(name, {}))
        content = config_to_json(preset(variant.preset, data=arguments.data))
        content["evaluation"]["exclude_seen"] = evaluation.exclude_seen
        _set_equal_sizes(content, arguments)
        own = {path: value for whom, path, value in changes if whom == ALL} | variant.changes
        own |= {path: value for whom, path, value in changes if whom == name}
        for path, value in own.items():
            _set(content, path, value, name)
        try:
            members.append(Member(name, config_from_json(content)))
        except ValueError as error:
            raise ValueError(f"the settings of {name}: {error}") from error
    return members


def _variants(arguments: CompareArguments) -> dict[str, Variant]:
    variants: dict[str, Variant] = {}
    for file in filter(None, arguments.variants.split(",")):
        variants = _read_variants(Path(file.strip()), variants)
    for text in arguments.variant:
        name, equals, start = (part.strip() for part in text.partition("="))
        if not equals:
            raise ValueError(f"--variant {text}: write NAME=PRESET")
        _check_variant(name, start, "--variant")
        if name not in arguments.names:
            raise ValueError(f"--variant {name} is not among the models of --presets {arguments.presets}")
        variants[name] = Variant(start, {})
    return variants


def _read_variants(path: Path, former: dict[str, Variant]) -> dict[str, Variant]:
    """The variants of a file and those before it, from which they may start."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object with a key for each variant")
    variants = dict(former)
    for name, entry in content.items():
        if not isinstance(entry, dict) or not {"preset"} <= entry.keys() <= {"preset", "set"}:
            raise ValueError(
                f'{path}: {name} must be {{"preset": ..., "set": {{path: value}}}}, got {entry!r}'
            )
        _check_variant(name, entry["preset"], str(path), former=variants)
        changes = entry.get("set", {})
        if not isinstance(changes, dict):
            raise ValueError(f"{path}: {name}.set must be an object of paths and values, got {changes!r}")
        start = variants.get(entry["preset"], Variant(entry["preset"], {}))
        variants[name] = Variant(start.preset, start.changes | changes)
    return variants


def _check_variant(name: str, start: str, where: str, former: Collection[str] = ()) -> None:
    if not NAME.fullmatch(name) or name in (*PRESETS, RANDOM, ALL):
        raise ValueError(
            f"{where}: a variant cannot be called {name!r}; take letters, digits, - and _, and no preset's name"
        )
    if start not in (*PRESETS, *former):
        found = "which is no preset and no variant before it" if former else "which is no preset"
        raise ValueError(
            f"{where}: {name} starts from {start!r}, {found}{nearest(start, [*PRESETS, *former])}"
        )


def _change(text: str, names: list[str]) -> tuple[str, str, Any]:
    """Whom ``--set`` concerns, the path and the value."""
    match = CHANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"--set {text}: write NAME.field.path=value")
    if match["name"] not in (*names, ALL):
        raise ValueError(
            f"--set {text}: {match['name']!r} is not compared{nearest(match['name'], [*names, ALL])}"
        )
    try:
        value = json.loads(match["value"])
    except json.JSONDecodeError:
        value = match["value"]
    return match["name"], match["path"], value


def _set_equal_sizes(content: dict[str, Any], arguments: CompareArguments) -> None:
    for section, name in (
        ("model", "width"),
        ("model", "max_length"),
        ("train", "epochs"),
        ("train", "patience"),
    ):
        value = getattr(arguments, name)
        if value and name in content[section]:
            content[section][name] = value


def _set(content: dict[str, Any], path: str, value: Any, name: str) -> None:
    """Replaces a value of a config's JSON form in place; the form is checked when the config is built."""
    for shared, flag in SHARED.items():
        if path == shared or path.startswith(f"{shared}."):
            raise ValueError(
                f"{name}.{path} cannot be set for one model: all models of a comparison have the same {path};"
                f" {flag} decides it"
            )
    if path in FIXED:
        shown = content["evaluation"][path.partition(".")[2]]
        raise ValueError(f"{name}.{path} cannot be set: a comparison has {shown} for all models")
    change_setting(content, path, value, name)


__all__ = ["POPULARITY", "RANDOM", "Member", "Variant", "make_members"]
