"""What the recommenders that are transformers check and fill in alike."""

from typing import Any

import flax.linen as nn

SIZES = ("max_length", "width", "num_layers", "num_heads", "feed_forward_multiplier")


def check_sizes(recommender: Any) -> None:
    """Refuses sizes below 1 and a width that the heads do not divide.

    Raises:
      ValueError: names the field and its value.
    """
    for name in SIZES:
        if getattr(recommender, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(recommender, name)}")
    if recommender.width % recommender.num_heads:
        raise ValueError(f"width {recommender.width} is not divisible by num_heads {recommender.num_heads}")


def sized(attention: nn.Module, max_length: int) -> nn.Module:
    """The provider's template, told the longest sequence if it wants to know."""
    wanted = "max_length" in attention.__dataclass_fields__
    return attention.clone(max_length=max_length) if wanted else attention


__all__ = ["check_sizes", "sized"]
