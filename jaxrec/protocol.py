"""The protocol card: what a figure was measured on, and how."""

import dataclasses
from typing import Any

import jax

from jaxrec.version import __version__


@dataclasses.dataclass(frozen=True)
class ProtocolCard:
    """Stands beside every figure; figures may be compared if ``comparable`` is equal.

    Attributes:
      data: name of the log.
      fingerprint: of its ordered sequences, after filtering.
      users: of the log.
      items: of the log, all of them candidates.
      interactions: of the log.
      split: how it was split.
      part: ``validation`` or ``test``.
      exclude_seen: whether items of the whole history were left out of the ranking.
      candidates: what was ranked.
      ties: how equal scores were ranked.
      chosen_by: what chose the checkpoint.
      seed: of the run.
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
    num_samples: int = 1
    candidates: str = "all items"
    ties: str = "half of the equally scored others rank above"
    chosen_by: str = "validation ndcg@10"
    jaxrec: str = __version__
    jax: str = jax.__version__
    device: str = dataclasses.field(default_factory=lambda: jax.devices()[0].device_kind)

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return dataclasses.asdict(self)


NOT_COMPARED = ("seed", "num_samples", "chosen_by", "jaxrec", "jax", "device")


def comparable(card: dict[str, Any]) -> dict[str, Any]:
    """The part of a card that must agree for two figures to stand in one column."""
    return {name: value for name, value in card.items() if name not in NOT_COMPARED}


__all__ = ["ProtocolCard", "comparable"]
