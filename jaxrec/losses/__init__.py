"""Losses over the item table, full and sampled, none of which holds the logits of a whole batch."""

from jaxrec.losses.ranking import (
    LOSSES,
    BinaryLoss,
    GeneralizedBinaryLoss,
    Loss,
    PairwiseLoss,
    SampledSoftmaxLoss,
    SoftmaxLoss,
)

__all__ = [
    "LOSSES",
    "BinaryLoss",
    "GeneralizedBinaryLoss",
    "Loss",
    "PairwiseLoss",
    "SampledSoftmaxLoss",
    "SoftmaxLoss",
]
