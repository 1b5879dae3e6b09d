"""How sizes, devices and rates are told."""

from typing import Any

from jaxrec.recommender import Recommender


def sizes_of(recommender: Recommender) -> dict[str, Any]:
    """Length, width and depth, for every record."""
    return {
        name: getattr(recommender, name)
        for name in ("max_length", "width", "num_layers")
        if hasattr(recommender, name)
    }


def describe_sizes(case: dict[str, Any]) -> str:
    """Width, depth and length, of those that the case has."""
    words = {"width": "D {}", "num_layers": "{} layers", "max_length": "L {}"}
    return ", ".join(form.format(case[name]) for name, form in words.items() if name in case)


def describe_devices(case: dict[str, Any]) -> str:
    """How many devices, if more than one; those of a CPU are fake and share its cores."""
    if case["devices"] == 1:
        return ""
    split = "" if case["model_devices"] == 1 else f", table split over {case['model_devices']}"
    return f", {case['devices']} {case.get('device_kind', '')}devices ({case['mode']}{split})"


def describe_flops(value: float) -> str:
    """GFLOP/s, or TFLOP/s from a thousand on."""
    return f"{value / 1e12:,.1f} TFLOP/s" if value >= 1e12 else f"{value / 1e9:,.3g} GFLOP/s"


__all__ = ["describe_devices", "describe_flops", "describe_sizes", "sizes_of"]
