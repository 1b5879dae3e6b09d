"""Plots of a benchmark: speed against devices, against steps a dispatch, and cost against the catalogue."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.dataset import missing
from benchmarks.rows import Row, machine_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOTS_AN_INCH = 110
NOT_TOLD = ("users", "items", "interactions", "device_kind", "part", "batch", "length")
"""Parts of a case that follow from others, or are the same for all curves."""


class Curve(NamedTuple):
    """Points of records whose cases differ in one value only.

    Attributes:
      case: what they have in common.
      points: the value and the record, ascending.
    """

    case: dict[str, Any]
    points: list[tuple[float, Row]]


def curves(records: list[Row], section: str, part: str, name: str) -> list[Curve]:
    """The curves along ``name`` of at least two points.

    Args:
      records: of a benchmark.
      section: theirs.
      part: of the case.
      name: of the case's value that grows along a curve.
    """
    groups: dict[str, Curve] = {}
    for record in records:
        case = record["case"]
        if (record["section"], case.get("part")) != (section, part) or name not in case:
            continue
        if "results" not in record:
            continue
        common = {key: value for key, value in case.items() if key not in (name, "device_kind")}
        key = json.dumps([common, machine_words(record)], sort_keys=True)
        groups.setdefault(key, Curve(common, [])).points.append((case[name], record))
    found = [Curve(curve.case, sorted(curve.points, key=lambda point: point[0])) for curve in groups.values()]
    return [curve for curve in found if len(curve.points) > 1]


def draw_plots(content: dict[str, Any], out: Path) -> list[Path]:
    """Writes ``OUT-devices.png``, ``OUT-steps.png``, ``OUT-batch.png`` and ``OUT-catalogue.png``.

    Args:
      content: of the JSON file.
      out: path without a suffix.

    Returns:
      The files; none for what has no two points, and none at all without matplotlib.
    """
    if missing(("matplotlib",)):
        return []
    records = content["records"]
    plots: dict[str, tuple[list[Curve], Callable[[list[Axes], Curve, str], None], int]] = {
        "devices": (curves(records, "training", "steps", "devices"), _scaling, 2),
        "steps": (curves(records, "training", "loop", "steps"), _speed_of_steps, 1),
        "batch": (curves(records, "training", "steps", "batch_targets"), _speed_of_batches, 1),
        "catalogue": (curves(records, "softmax", "step", "items"), _catalogue, 2),
    }
    paths = []
    for name, (found, draw, columns) in plots.items():
        if found:
            path = out.with_name(f"{out.name}-{name}.png")
            _draw(found, draw, columns, path)
            paths.append(path)
    return paths


def _draw(found: list[Curve], draw: Callable, columns: int, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * columns, 4.5), layout="constrained")  # no part of pyplot's state
    places = list(figure.subplots(1, columns, squeeze=False)[0])
    told = _told(found)
    for curve in found:
        draw(places, curve, ", ".join(str(curve.case[name]) for name in told if name in curve.case))
    for axes in places:
        axes.grid(alpha=0.3)
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", fontsize=7)
    figure.savefig(path, dpi=DOTS_AN_INCH)


def _told(found: list[Curve]) -> list[str]:
    """The values in which curves differ, or the preset if they do not."""
    names = [name for name in found[0].case if name not in NOT_TOLD]
    differing = [name for name in names if len({str(curve.case.get(name)) for curve in found}) > 1]
    return differing or [name for name in ("preset", "loss") if name in found[0].case]


def _scaling(places: list["Axes"], curve: Curve, label: str) -> None:
    devices = [value for value, _ in curve.points]
    speeds = [record["results"]["targets_per_second"] for _, record in curve.points]
    fake = curve.points[0][1]["environment"]["platform"] == "cpu"
    places[0].plot(devices, speeds, marker="o", label=label)
    _axis(places[0], "fake devices, which share the processor" if fake else "devices", "targets/s", devices)
    share = [
        speed / speeds[0] * (1 if fake else devices[0] / count)
        for count, speed in zip(devices, speeds, strict=True)
    ]
    places[1].plot(devices, share, marker="o", label=label)
    _axis(places[1], "devices", f"speed against {devices[0]}{'' if fake else ', a device'}", devices)
    places[1].set_ylim(bottom=0)


def _speed_of_steps(places: list["Axes"], curve: Curve, label: str) -> None:
    _speed(places[0], curve, label, "steps a dispatch (S)")


def _speed_of_batches(places: list["Axes"], curve: Curve, label: str) -> None:
    _speed(places[0], curve, label, "targets a step")


def _speed(axes: "Axes", curve: Curve, label: str, what: str) -> None:
    values = [value for value, _ in curve.points]
    axes.plot(
        values,
        [record["results"]["targets_per_second"] for _, record in curve.points],
        marker="o",
        label=label,
    )
    _axis(axes, what, "targets/s", values)


def _catalogue(places: list["Axes"], curve: Curve, label: str) -> None:
    items = [value for value, _ in curve.points]
    seconds = [record["results"]["step_seconds"] for _, record in curve.points]
    memory = [record["results"]["peak_memory_bytes"] / 2**30 for _, record in curve.points]
    for axes, values, what in zip(
        places, (seconds, memory), ("seconds a step", "peak memory, GiB"), strict=True
    ):
        axes.loglog(items, values, marker="o", label=label)
        axes.set(xlabel="items of the catalogue", ylabel=what)


def _axis(axes: "Axes", what: str, figure: str, values: list[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set(xlabel=what, ylabel=figure)


__all__ = ["Curve", "curves", "draw_plots"]
