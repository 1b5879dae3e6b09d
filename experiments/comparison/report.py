"""A comparison as Markdown tables, and the short table that the terminal and the README show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import describe_environment, markdown_table

from comparison.runs import EXCLUDED, INCLUDED
from jaxrec.protocol import NOTHING

SHORT_HEADINGS = (
    "model",
    "HR@10",
    "NDCG@10",
    "p",
    "coverage@10",
    "CC@10",
    "F@10",
    "parameters",
    "step",
    "recommendation",
)
TERMINAL_HEADINGS = ("model", "HR@10", "NDCG@10", "p", "coverage@10", "CC@10", "step", "recommendation")
"""Those of which a line fits a terminal."""
ACCURACY = {"hr@5": "HR@5", "hr@10": "HR@10", "hr@20": "HR@20"} | {
    "ndcg@5": "NDCG@5",
    "ndcg@10": "NDCG@10",
    "ndcg@20": "NDCG@20",
    "mrr": "MRR",
}
DIVERSITY = {
    "coverage@10": "item coverage",
    "gini@10": "Gini",
    "entropy@10": "entropy (bits)",
    "novelty@10": "novelty (bits)",
    "ild@10": "ILD, own vectors",
    "category_ild@10": "ILD, categories",
    "cc@10": "CC",
    "f@10": "F",
}
GROUP_METRIC = "ndcg@10"


def spread(figures: dict[str, Any], metric: str, form: str = ".4f") -> str:
    """``mean ± sd``; the mean alone for one seed; nothing where there is no such figure."""
    if metric not in figures["mean"]:
        return ""
    text = format(figures["mean"][metric], form)
    return f"{text} ± {format(figures['sd'][metric], form)}" if "sd" in figures else text


def p_value(model: dict[str, Any], metric: str = "ndcg@10") -> str:
    """Of the paired test against the baseline, with the direction; nothing for the baseline."""
    if metric not in model.get("paired", {}):
        return ""
    test = model["paired"][metric]
    text = "< 0.001" if test["p_value"] < 0.001 else f"{test['p_value']:.3f}"
    sign = "+" if test["difference"] > 0 else "−" if test["difference"] < 0 else "="
    return f"{sign} {text}"


def short_table(
    content: dict[str, Any], protocol: str, headings: Sequence[str] = SHORT_HEADINGS
) -> tuple[list[str], list[list[str]]]:
    """Headings and one line a model: accuracy, significance, diversity and cost; empty columns left out."""
    lines = []
    for name, model in content["protocols"][protocol]["models"].items():
        figures = [spread(model, metric) for metric in ("hr@10", "ndcg@10")]
        figures += [p_value(model), *(spread(model, metric) for metric in ("coverage@10", "cc@10", "f@10"))]
        lines.append([name, *figures, *_costs(content, name)])
    kept = [
        place
        for place, heading in enumerate(SHORT_HEADINGS)
        if heading in headings and any(line[place] for line in lines)
    ]
    return [SHORT_HEADINGS[place] for place in kept], [[line[place] for place in kept] for line in lines]


def _costs(content: dict[str, Any], name: str) -> list[str]:
    """Parameters, and the two ratios to the baseline."""
    timed = ((content["timing"] or {}).get("models") or {}).get(name, {})
    ratios = [f"{timed[key]:.2f} x" if key in timed else "" for key in ("step_ratio", "recommendation_ratio")]
    return [f"{content['costs'][name]['parameters']:,}", *ratios]


def describe_protocol(content: dict[str, Any], protocol: str) -> str:
    """What the figures of one protocol were measured on, in one sentence."""
    card = content["protocols"][protocol]["protocol"]
    seen = "left out" if card["exclude_seen"] else "ranked as well"
    seeds = sorted({run["seed"] for run in content["runs"]})
    cards = [run["results"][protocol]["protocol"] for run in content["runs"]]
    chosen = any(not card["chosen_by"].startswith(NOTHING) for card in cards)
    choice = f"the checkpoint was chosen by validation NDCG@10{_seen_in_choice(content)}"
    return (
        f"{card['data']} ({card['users']:,} users, {card['items']:,} items, {card['interactions']:,} interactions;"
        f" fingerprint {card['fingerprint']}), {card['split']}, {card['part']}: {card['candidates']} ranked, items of"
        f" the history {seen}. {'Seeds' if len(seeds) > 1 else 'Seed'} {', '.join(map(str, seeds))};"
        f" {choice if chosen else 'no checkpoint was chosen'}."
    )


def _protocol_of_choice(content: dict[str, Any]) -> str:
    """The protocol that treats seen items as the choice of checkpoints did; empty where older results do not say it."""
    choice = next(iter(content["protocols"].values()))["protocol"].get("chosen_by", "")
    return next((name for name in (EXCLUDED, INCLUDED) if choice.endswith(name.replace("-", " "))), "")


def _seen_in_choice(content: dict[str, Any]) -> str:
    """How seen items were treated in the choice of the checkpoint; nothing where older results do not say it."""
    words = {EXCLUDED: ", items of the history left out", INCLUDED: ", items of the history ranked as well"}
    return words.get(_protocol_of_choice(content), "")


def notes(content: dict[str, Any]) -> str:
    """How to read the tables."""
    timing = content["timing"]
    text = (
        f"± is the standard deviation over seeds. p: two-sided paired randomisation test of each user's value,"
        f" averaged over seeds, against {content['baseline']}, with the sign of the difference; not corrected for the"
        " number of models, and blind to what other seeds would give."
    )
    if any(
        "cc@10" in model["mean"]
        for found in content["protocols"].values()
        for model in found["models"].values()
    ):
        text += (
            " CC: share of all categories that a list covers; F = 2 q CC / (q + CC) with q = (HR + NDCG) / 2;"
            " coverage: share of all items that stand in some list."
        )
    if timing:
        text += (
            f" Step and recommendation: seconds of a training step, and of top 10 for one user in bulk, over those"
            f" of {content['baseline']}, median of {timing['rounds']} rounds in turn"
            f" ({describe_environment(timing)})."
        )
    return text


def readme_table(content: dict[str, Any], report: str) -> str:
    """The short table of one protocol, if possible that of the choice, and the link to the page of all."""
    chosen = _protocol_of_choice(content)
    protocol = chosen if chosen in content["protocols"] else next(iter(content["protocols"]))
    headings, lines = short_table(content, protocol)
    return "\n\n".join(
        [
            describe_protocol(content, protocol),
            markdown_table(headings, lines),
            f"[Command, legend and all figures]({report})",
        ]
    )


def protocol_title(protocol: str) -> str:
    """The heading of a protocol's section."""
    return "Seen items excluded" if protocol == EXCLUDED else "Seen items included"


def markdown_report(content: dict[str, Any], plots: Sequence[Path] = ()) -> str:
    """Everything: each protocol in its own tables, then cost, then plots."""
    card = next(iter(content["protocols"].values()))["protocol"]
    parts = [f"# Comparison on {card['data']}", f"`{content['command']}`", notes(content)]
    for protocol in content["protocols"]:
        parts += [
            f"## {protocol_title(protocol)}",
            describe_protocol(content, protocol),
            *_protocol_tables(content, protocol),
        ]
    if content.get("validation"):
        parts += ["## Validation", *_validation_table(content)]
    parts += ["## Cost", _cost_table(content)]
    parts += [f"![{path.stem}]({path.name})" for path in plots]
    return "\n\n".join(parts) + "\n"


def _protocol_tables(content: dict[str, Any], protocol: str) -> list[str]:
    models = content["protocols"][protocol]["models"]
    tests = {name: model["paired"] for name, model in models.items() if "paired" in model}
    parts = ["### Accuracy", _metric_table(models, ACCURACY), "### Against the baseline", _test_table(tests)]
    for base in content.get("also_against", ()):
        tests = {
            name: model["paired_against"][base]
            for name, model in models.items()
            if base in model.get("paired_against", {})
        }
        parts += [f"### Against {base}", _test_table(tests)]
    parts += ["### Beyond accuracy, lists of 10", _metric_table(models, DIVERSITY)]
    groups = list(next(iter(models.values()))["groups"])
    lines = [
        [name, *(spread(model["groups"][group], GROUP_METRIC) for group in groups)]
        for name, model in models.items()
    ]
    sizes = next(iter(models.values()))["groups"]
    headings = ["model", *(f"{group} ({sizes[group]['users']:,})" for group in groups)]
    return [*parts, "### NDCG@10 by group (users)", markdown_table(headings, lines)]


def _metric_table(models: dict[str, Any], metrics: dict[str, str]) -> str:
    present = [metric for metric in metrics if any(metric in model["mean"] for model in models.values())]
    lines = [[name, *(spread(model, metric) for metric in present)] for name, model in models.items()]
    return markdown_table(["model", *(metrics[metric] for metric in present)], lines)


def _test_table(tests: dict[str, dict[str, Any]]) -> str:
    """Differences with their intervals, of tests by model and metric."""
    metrics = list(next(iter(tests.values()), {}))
    headings = ["model"]
    for metric in metrics:
        headings += [f"{metric.upper()}, difference [95 %]", "p", "better / worse users"]
    lines = []
    for name, of_model in tests.items():
        line = [name]
        for metric in metrics:
            test = of_model[metric]
            line += [
                f"{test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]",
                p_value({"paired": of_model}, metric).partition(" ")[2],
                f"{test['wins']:,} / {test['losses']:,}",
            ]
        lines.append(line)
    return markdown_table(headings, lines)


def _validation_table(content: dict[str, Any]) -> list[str]:
    """The figures that chose the checkpoints, and that settings are to be chosen by."""
    seen = _seen_in_choice(content) or ", items of the history left out"
    lines = [
        [name, spread(figures, "ndcg@10"), spread(figures, "epoch", ".1f")]
        for name, figures in content["validation"].items()
    ]
    return [
        f"Of each run's checkpoint, on the validation part{seen}, and the epoch that it is from.",
        markdown_table(["model", "validation NDCG@10", "epoch"], lines),
    ]


def _cost_table(content: dict[str, Any]) -> str:
    """What each model costs; the training's time is that of the day, the others were taken in turn."""
    lines = []
    for name, costs in content["costs"].items():
        parameters, step_ratio, recommendation_ratio = _costs(content, name)
        trained = bool(costs["mean"]["training_seconds"])
        training = spread(costs, "training_seconds", ",.0f") + " s" if trained else ""
        timed = ((content["timing"] or {}).get("models") or {}).get(name, {})
        line = [name, parameters, training]
        line += [f"{1e3 * timed['step_seconds']:.3g} ms" if timed else "", step_ratio]
        line += [f"{timed['epoch_seconds']:.3g} s" if timed else ""]
        line += [f"{1e3 * timed['recommendation_seconds']:.3g} ms" if timed else "", recommendation_ratio]
        lines.append(line)
    headings = [
        "model",
        "parameters",
        "training (beside other work, pauses included)",
        "step",
        "ratio",
        "steps of an epoch",
    ]
    return markdown_table([*headings, "recommendation", "ratio"], lines)


__all__ = [
    "describe_protocol",
    "markdown_report",
    "notes",
    "p_value",
    "protocol_title",
    "readme_table",
    "short_table",
    "spread",
]
