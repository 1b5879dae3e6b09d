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


__all__ = ["Row", "failed", "row", "skipped"]
