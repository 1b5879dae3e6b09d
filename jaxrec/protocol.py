"""The protocol card: what a figure was measured on, and how."""

import dataclasses
from typing import Any

import jax

from jaxrec.metrics import SELECTION_METRIC
from jaxrec.version import __version__


@dataclasses.dataclass(frozen=True)
class ProtocolCard:
    """Stands beside every figure; figures may be compared if ``comparable`` is equal.

    Attributes:
      data: name of the log.
      fingerprint: hash of the log's ordered sequences, after filtering.
      users: how many users the log has.
      items: how many items the log has, all of them candidates.
      interactions: how many interactions the log has.
      split: how it was split.
      positions: hash of where its parts lie in the log; empty, and not in the dict, for leave-one-out.
      part: ``validation`` or ``test``.
      exclude_seen: whether items of the whole history were left out of the ranking.
      candidates: what was ranked.
      ties: how equal scores were ranked.
      seed: the run's seed.
      chosen_by: what chose the checkpoint, see ``chosen_by``.
      num_samples: draws averaged for a stochastic model.
      jaxrec: version.
      jax: version.
      device: kind of the device.
    """

    data: str
    fingerprint: str
    users: int
    items: int
    interactions: int
    split: str
    part: str
    exclude_seen: bool
    seed: int
    chosen_by: str
    positions: str = ""
    num_samples: int = 1
    candidates: str = "all items"
    ties: str = "half of the equally scored others rank above"
    jaxrec: str = __version__
    jax: str = jax.__version__
    device: str = dataclasses.field(default_factory=lambda: jax.devices()[0].device_kind)

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return {name: value for name, value in vars(self).items() if name != "positions" or value}


NOT_COMPARED = ("seed", "num_samples", "jaxrec", "jax", "device")
VALIDATION, NOTHING = f"validation {SELECTION_METRIC}", "nothing"
OLDER_CHOICES = {VALIDATION: f"{VALIDATION}, seen excluded"}
"""What cards said before they named the treatment of seen items; comparisons knew only one."""


def chosen_by(
    *, trained: bool, validated: bool, exclude_seen: bool, select_by: str = SELECTION_METRIC
) -> str:
    """What chose the checkpoint, in a card's words.

    Args:
      trained: whether the model learns by gradient.
      validated: whether there are validation targets.
      exclude_seen: whether items of the history were left out of the validation's ranking.
      select_by: the metric.
    """
    if not trained:
        return f"{NOTHING}: it is not trained"
    if not validated:
        return f"{NOTHING}: there are no validation targets, and the last checkpoint is taken"
    return f"validation {select_by}, seen {'excluded' if exclude_seen else 'included'}"


def comparable(card: dict[str, Any]) -> dict[str, Any]:
    """The part of a card that must agree for two figures to stand in one column.

    Where nothing chose the checkpoint, ``chosen_by`` is left out: such a figure may stand beside every other.
    """
    part = {name: value for name, value in card.items() if name not in NOT_COMPARED}
    choice = part.get("chosen_by", NOTHING)
    if choice.startswith(NOTHING):
        part.pop("chosen_by", None)
    else:
        part["chosen_by"] = OLDER_CHOICES.get(choice, choice)
    return part


__all__ = ["NOTHING", "ProtocolCard", "chosen_by", "comparable"]
