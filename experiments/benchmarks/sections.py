"""All sections, and running a case of one in a process of its own."""

import dataclasses
import time
from types import ModuleType
from typing import Any

from benchmarks import diffusing, feeding, full_softmax, peers, preparing, recommending, training
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
    "diffusion": diffusing,
    "peers": peers,
}


def request_of(settings: Settings, case: dict[str, Any]) -> dict[str, Any]:
    """What was asked for: equal requests need be measured once on a machine."""
    return {"case": case, "settings": settings.digest(case)}


def run_case(
    settings: Settings, section: str, case: dict[str, Any], machine: dict[str, Any] | None = None
) -> list[Row]:
    """The records of a case.

    Args:
      settings: the flags.
      section: its name.
      case: one of ``SECTIONS[section].cases(settings)``.
      machine: the facts that stand in a record where the case's process could not give its own.

    Returns:
      Rows with ``section``, ``request``, ``environment`` and ``case_seconds``, the wall time of the whole case.
    """
    start = time.perf_counter()
    absent = missing(SECTIONS[section].NEEDS)
    if absent:
        rows = [skipped(case, f"{' and '.join(absent)} not installed")]
    else:
        try:
            rows = run_apart(
                "benchmarks.sections:measure_case",
                fake_devices=case.get("devices", 1),
                settings=dataclasses.asdict(settings),
                section=section,
                case=case,
            )
        except RuntimeError as error:
            rows = [failed(case, str(error))]
    about = {"section": section, "request": request_of(settings, case)}
    about["case_seconds"] = round(time.perf_counter() - start, 3)
    where = {"environment": machine} if machine else {}
    return [{**where, **row, **about} for row in rows]


def measure_case(settings: dict[str, Any], section: str, case: dict[str, Any]) -> list[Row]:
    """What the process of a case does."""
    known = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    rows = list(SECTIONS[section].measure(Settings(**known), case))
    from benchmarks.device import environment

    facts = environment()
    return [{"section": section, **row, "environment": facts} for row in rows]


__all__ = ["SECTIONS", "measure_case", "request_of", "run_case"]
