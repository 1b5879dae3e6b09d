"""Gaussian noise, with or without an offset, drawn from one key or from one key a row.

Every function takes either one key or an array of keys. Keys of shape ``[B]`` (or ``[B, L]``) belong to
the leading axes of what is drawn, so that a row's draws depend on that row's key alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxrec.typing import Array, PRNGKey

Draw = Callable[[PRNGKey, tuple[int, ...]], Array]
"""``(key, shape) -> float32`` numbers of that shape, of whatever distribution is asked for."""


def fold_key(key: PRNGKey, data: Array | int) -> PRNGKey:
    """Folds one integer into a key, or into each key of an array; the shape stays."""
    fold = jax.random.fold_in
    for _ in range(key.ndim):
        fold = jax.vmap(fold, in_axes=(0, None))
    return fold(key, data)


def split_key(key: PRNGKey, num: int = 2) -> tuple[PRNGKey, ...]:
    """``num`` new keys, each of the shape of ``key``."""
    return tuple(fold_key(key, index) for index in range(num))


def draw_normal(key: PRNGKey, shape: tuple[int, ...]) -> Array:
    """N(0, I) float32 of ``shape``; an array of keys must have the shape's leading axes.

    Raises:
      ValueError: the keys' shape is no prefix of ``shape``.
    """
    if key.shape != tuple(shape[: key.ndim]):
        raise ValueError(
            f"keys of shape {key.shape} cannot draw noise of shape {tuple(shape)}: the keys' axes must be"
            " the leading axes of the noise"
        )

    def draw(one_key: PRNGKey) -> Array:
        return jax.random.normal(one_key, shape[key.ndim :], jnp.float32)

    for _ in range(key.ndim):
        draw = jax.vmap(draw)
    return draw(key)


@dataclasses.dataclass(frozen=True)
class Noise:
    """The noise ε of the forward process: ε = n₁ + ρ·n₂ with an offset, ε = n₁ without.

    DiffuRecSys (Zolghadr et al. 2024) adds an offset; its code draws n₂ of n₁'s shape (``"independent"``),
    which is no more than N(0, (1 + ρ²) I). The usual meaning of offset noise, and our reading, shares one
    number across the last axis (``"shared"``): its covariance is I + ρ² 1 1ᵀ. A layer norm subtracts the mean of the
    channels, and with it a shared offset that reaches it with one scale for all channels: what is left of it is what
    scales that differ by channel, or a projection that stands before any norm, make of it.

    Attributes:
      offset: what n₂ is: ``none`` (left out), ``independent`` (drawn for each channel) or ``shared`` (one number for
        all channels).
      strength: ρ, the strength of the offset; no effect where there is none.
    """

    offset: Literal["none", "independent", "shared"] = "none"
    strength: float = 0.1

    def __post_init__(self) -> None:
        if self.offset not in ("none", "independent", "shared"):
            raise ValueError(f"offset is {self.offset!r}, but must be 'none', 'independent' or 'shared'")
        if not 0.0 <= self.strength < float("inf"):
            raise ValueError(f"the offset's strength is {self.strength}, but must be finite and not negative")

    def draw(self, key: PRNGKey, shape: tuple[int, ...], draw: Draw = draw_normal) -> Array:
        """ε of ``shape`` ``[..., D]``, float32, from one key or one key a row; ``draw`` gives N(0, I)."""
        if self.offset == "none":
            return draw(key, shape)
        plain_key, offset_key = split_key(key)
        offset_shape = shape if self.offset == "independent" else (*shape[:-1], 1)
        return draw(plain_key, shape) + self.strength * draw(offset_key, offset_shape)


__all__ = ["Draw", "Noise", "draw_normal", "fold_key", "split_key"]
