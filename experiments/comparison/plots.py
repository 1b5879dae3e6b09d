"""Plots of a comparison: accuracy against diversity, and accuracy by length of the history."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison.runs import EXCLUDED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIVERSITY = {"coverage@10": "item coverage@10", "cc@10": "category coverage CC@10"}
DOTS_AN_INCH = 110
HISTORY = "history "
STYLES = (("o", "-"), ("s", "--"), ("^", ":"))
"""Marker and line of the first ten models, the next ten, and so on."""


def draw_plots(content: dict[str, Any], out: Path) -> list[Path]:
    """Writes ``OUT-accuracy-coverage.png`` and ``OUT-history-length.png`` (a pair for each protocol).

    Args:
      content: of the JSON file.
      out: path without a suffix.

    Returns:
      The files.
    """
    paths = []
    for protocol, part in content["protocols"].items():
        suffix = "" if protocol == EXCLUDED else f"-{protocol}"
        for name, draw in (("accuracy-coverage", _accuracy_coverage), ("history-length", _history_length)):
            path = out.with_name(f"{out.name}-{name}{suffix}.png")
            draw(part, path)
            paths.append(path)
    return paths


def _looks(models: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each model, the same in all plots."""
    import matplotlib

    palette = matplotlib.colormaps["tab10"].colors
    looks = {}
    for place, name in enumerate(models):
        marker, line = STYLES[place // len(palette) % len(STYLES)]
        looks[name] = {"color": palette[place % len(palette)], "marker": marker, "linestyle": line}
    return looks


def _figure(columns: int) -> tuple[Any, list["Axes"]]:
    """A figure that is no part of pyplot's state, so that nothing is left open."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * columns, 4.5), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _accuracy_coverage(part: dict[str, Any], path: Path) -> None:
    models = part["models"]
    shown = [metric for metric in DIVERSITY if all(metric in model["mean"] for model in models.values())]
    figure, places = _figure(len(shown))
    looks = _looks(models)
    for axes, metric in zip(places, shown, strict=True):
        for name, model in models.items():
            sd = model.get("sd", {})
            axes.errorbar(
                model["mean"][metric],
                model["mean"]["ndcg@10"],
                xerr=sd.get(metric),
                yerr=sd.get("ndcg@10"),
                capsize=2,
                label=name,
                **looks[name] | {"linestyle": "none"},
            )
        axes.set_xlabel(DIVERSITY[metric])
        axes.set_ylabel("NDCG@10")
        axes.grid(alpha=0.3)
    _legend(figure, places[0])
    _save(figure, part, path)


def _history_length(part: dict[str, Any], path: Path) -> None:
    models = part["models"]
    first = next(iter(models.values()))["groups"]
    groups = [name for name in first if name.startswith(HISTORY)]
    figure, (axes,) = _figure(1)
    looks = _looks(models)
    for name, model in models.items():
        figures = [model["groups"][group] for group in groups]
        sd = [one["sd"]["ndcg@10"] for one in figures] if "sd" in model else None
        means = [one["mean"]["ndcg@10"] for one in figures]
        axes.errorbar(range(len(groups)), means, yerr=sd, markersize=4, capsize=2, label=name, **looks[name])
    labels = [f"{group.removeprefix(HISTORY)}\n{first[group]['users']:,} users" for group in groups]
    axes.set_xticks(range(len(groups)), labels)
    axes.set_xlabel("items in the history")
    axes.set_ylabel("NDCG@10")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    _legend(figure, axes)
    _save(figure, part, path)


def _legend(figure: Any, axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)


def _save(figure: Any, part: dict[str, Any], path: Path) -> None:
    card = part["protocol"]
    seen = "excluded" if card["exclude_seen"] else "included"
    figure.suptitle(f"{card['data']}, {card['split']}, {card['part']}, seen items {seen}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_AN_INCH)


__all__ = ["draw_plots"]
