"""What a section yields: a case, what came out, and how it was timed."""

from typing import Any

Row = dict[str, Any]


def row(case: dict[str, Any], results: dict[str, Any], timing: dict[str, Any]) -> Row:
    """A measured case. Names of results end in their unit (``_seconds``, ``_bytes``, ``_per_second``)."""
    return {"case": case, "results": results, "timing": timing}


def skipped(case: dict[str, Any], reason: str) -> Row:
    """A case that cannot be measured here, and why."""
    return {"case": case, "skipped": reason}


def failed(case: dict[str, Any], reason: str) -> Row:
    """A case that was tried and failed."""
    return {"case": case, "failed": reason}


def machine_words(record: Row) -> tuple:
    """What tells a record's machine and versions apart from another's; ``()`` where it has none.

    The number of devices is the case's: those of a CPU are fake.
    """
    facts = record.get("environment", {})
    names = ("platform", "device", "processor", "cores", "jaxrec", "jax", "python")
    return tuple(facts.get(name) for name in names) if facts else ()


__all__ = ["Row", "failed", "machine_words", "row", "skipped"]
