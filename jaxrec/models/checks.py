"""What the recommenders that are transformers check and fill in alike."""

from typing import Any

import flax.linen as nn

from jaxrec.choices import check_choices

RATES = ("dropout_rate", "attention_dropout_rate", "input_dropout_rate")
SIZES = ("max_length", "width", "num_layers", "num_heads", "feed_forward_multiplier")


def check_settings(recommender: Any, *, gaussian: bool = False) -> None:
    """Refuses settings that a model cannot be built or trained with.

    Args:
      recommender: the model, a dataclass.
      gaussian: whether its items are Gaussians, ranked by their distance (STOSA).

    Raises:
      ValueError: a size is below 1, the heads do not divide the width, a number lies outside its range, a word is
        unknown, or attention or loss are made for the other kind of items; names the field and its value.
    """
    for name in SIZES:
        if getattr(recommender, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(recommender, name)}")
    if recommender.width % recommender.num_heads:
        raise ValueError(f"width {recommender.width} is not divisible by num_heads {recommender.num_heads}")
    for name in RATES:
        if not 0.0 <= getattr(recommender, name, 0.0) <= 1.0:
            raise ValueError(f"{name} must lie between 0 and 1, got {getattr(recommender, name)}")
    if not 0.0 < getattr(recommender, "embedding_stddev", 1.0) < float("inf"):
        raise ValueError(f"embedding_stddev must be above 0, got {recommender.embedding_stddev}")
    if not 0.0 <= getattr(recommender, "uncertainty", 0.0) < float("inf"):
        raise ValueError(f"uncertainty must be finite and not negative, got {recommender.uncertainty}")
    check_choices(recommender)
    model = type(recommender).__name__
    attention = getattr(recommender, "attention", None)
    if attention is not None and getattr(attention, "reads_gaussians", False) != gaussian:
        kinds = ("Gaussians", "vectors") if not gaussian else ("vectors", "Gaussians")
        hint = ", such as WassersteinScores() or Refined(base=WassersteinScores())" if gaussian else ""
        raise ValueError(
            f"attention {type(attention).__name__} reads {kinds[0]}, and the items of {model} are {kinds[1]}; take"
            f" another attention{hint}"
        )
    if getattr(recommender.loss_function, "between_gaussians", False) and not gaussian:
        raise ValueError(
            f"loss_function {type(recommender.loss_function).__name__} is of distances between Gaussians, and {model}"
            " ranks by inner product; take another loss, such as SoftmaxLoss(): this one is for STOSA only"
        )


def sized(attention: nn.Module, max_length: int) -> nn.Module:
    """The provider's template, told the longest sequence if it wants to know."""
    wanted = "max_length" in attention.__dataclass_fields__
    return attention.clone(max_length=max_length) if wanted else attention


__all__ = ["check_settings", "sized"]
