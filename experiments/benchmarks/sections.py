"""All sections, and running a case of one in a process of its own."""

import dataclasses
from types import ModuleType
from typing import Any

from benchmarks import feeding, full_softmax, preparing, recommending, training
from benchmarks.apart import run_apart
from benchmarks.dataset import missing
from benchmarks.rows import Row, failed, skipped
from benchmarks.settings import Settings

SECTIONS: dict[str, ModuleType] = {
    "training": training,
    "recommend": recommending,
    "pipeline": feeding,
    "prepare": preparing,
    "softmax": full_softmax,
}


def run_case(settings: Settings, section: str, case: dict[str, Any]) -> list[Row]:
    """The records of a case: rows with ``section`` and ``environment``."""
    absent = missing(SECTIONS[section].NEEDS)
    if absent:
        return [{"section": section, **skipped(case, f"{' and '.join(absent)} not installed")}]
    try:
        return run_apart(
            "benchmarks.sections:measure_case",
            fake_devices=case.get("devices", 1),
            settings=dataclasses.asdict(settings),
            section=section,
            case=case,
        )
    except RuntimeError as error:
        return [{"section": section, **failed(case, str(error))}]


def measure_case(settings: dict[str, Any], section: str, case: dict[str, Any]) -> list[Row]:
    """What the process of a case does."""
    known = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    rows = list(SECTIONS[section].measure(Settings(**known), case))
    from benchmarks.device import environment

    facts = environment()
    return [{"section": section, **row, "environment": facts} for row in rows]


__all__ = ["SECTIONS", "measure_case", "run_case"]
