"""The losses by the names that the field uses, for settings that a person types."""

import difflib

from jaxrec.losses import LOSSES, Loss
from jaxrec.models.stosa import DistanceLoss

NAMED_LOSSES: dict[str, type] = {**LOSSES, "distance": DistanceLoss}
"""All losses by name; ``distance`` is for STOSA only."""

LOSS_LINES: dict[str, str] = {
    "softmax": "cross-entropy over all items of the catalogue",
    "sampled-softmax": "cross-entropy over a sample of 512 items, scores corrected by logQ",
    "bce": "binary cross-entropy with one sampled negative, as SASRec is published",
    "gbce": "calibrated binary cross-entropy with 256 sampled negatives (gSASRec)",
    "bpr": "the target's score above that of one sampled negative (pairwise)",
    "distance": "BPR on Wasserstein distances, as STOSA is published; for STOSA only",
}
"""What each of them is, in one line."""

OLDER_NAMES = {
    "sampled_softmax": "sampled-softmax",
    "binary": "bce",
    "generalized_binary": "gbce",
    "generalized-binary": "gbce",
    "pairwise": "bpr",
}
"""Names of earlier versions; still understood, no longer shown."""


def named_loss(name: str) -> Loss:
    """The loss of a name, with its default settings.

    Raises:
      ValueError: there is none; lists the names, and the one that was probably meant.
    """
    known = OLDER_NAMES.get(name, name)
    if known not in NAMED_LOSSES:
        close = difflib.get_close_matches(name, list(NAMED_LOSSES), n=1)
        meant = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"there is no loss {name!r}{meant} The losses are {', '.join(NAMED_LOSSES)}")
    return NAMED_LOSSES[known]()


__all__ = ["LOSS_LINES", "NAMED_LOSSES", "named_loss"]
