"""Rows of attention seen by distance: how far back a key lies, instead of where it stands.

A *profile* is a row of a map re-indexed by lag (distance between the row and its key), farthest lag first,
so that the newest row's profile is the row itself. Profiles of the same history are the same wherever the
row stands and however much padding there is. Tables over lags or over places are stored the same way, right
aligned: index ``max_length - 1`` is lag 0 (or the newest place), and a shorter bucket reads the end of them.

In what follows R rows are the newest of M keys; R = M in self-attention over all rows.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrec.typing import Array, PRNGKey


def profiles_to_keys(profiles: Array) -> Array:
    """Turns profiles ``[..., R, M]`` into rows over keys ``[..., R, M]``; 0 at keys newer than the row.

    ``rows[i, j] = profiles[i, j + R - 1 - i]``, done by padding and reshaping, with no gather.
    """
    *leading, num_rows, num_keys = profiles.shape
    padded = jnp.pad(profiles, [(0, 0)] * (len(leading) + 1) + [(1, 0)])
    flat = padded.reshape(*leading, num_rows * (num_keys + 1))[..., num_rows:]
    return jnp.where(
        not_newer(num_rows, num_keys), flat.reshape(profiles.shape), jnp.zeros((), profiles.dtype)
    )


def keys_to_profiles(rows: Array) -> Array:
    """Turns rows over keys ``[..., R, M]`` into profiles ``[..., R, M]``, back from ``profiles_to_keys``.

    Keys newer than the row are dropped, lags that reach before the first key are 0.
    """
    *leading, num_rows, num_keys = rows.shape
    rows = jnp.where(not_newer(num_rows, num_keys), rows, jnp.zeros((), rows.dtype))
    flat = rows.reshape(*leading, num_rows * num_keys)
    flat = jnp.pad(flat, [(0, 0)] * len(leading) + [(num_rows, 0)])
    return flat.reshape(*leading, num_rows, num_keys + 1)[..., 1:]


def not_newer(num_rows: int, num_keys: int) -> Array:
    """``[R, M]`` bool: whether the key is not newer than the row."""
    return lag_of(num_rows, num_keys) >= 0


def lag_of(num_rows: int, num_keys: int) -> Array:
    """``[R, M]`` int32: how many places the key lies before the row, negative if it is newer."""
    rows = jnp.arange(num_keys - num_rows, num_keys, dtype=jnp.int32)
    return rows[:, None] - jnp.arange(num_keys, dtype=jnp.int32)


def real_rows(mask: Array) -> Array:
    """``[B, R]`` bool: the rows that may attend to something, from a mask ``[B, 1, R, M]``."""
    return jnp.any(mask[:, 0], axis=-1)


def recency_initializer(slope: float):
    """Initialiser of a table ``[..., max_length]`` over lags: ``-slope`` a lag, 0 at lag 0."""

    def initialise(key: PRNGKey, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
        del key
        return jnp.broadcast_to(-slope * jnp.arange(shape[-1] - 1, -1, -1, dtype=dtype), shape)

    return initialise


def require_length(max_length: int | None, length: int, name: str) -> int:
    """Checks that a table of ``max_length`` lags serves ``length`` keys, and returns ``max_length``.

    Raises:
      ValueError: if the table was given no length, or the sequence is longer than it.
    """
    if max_length is None:
        raise ValueError(f"{name} has a table over lags and needs max_length; clone it with max_length=...")
    if length > max_length:
        raise ValueError(
            f"{name} was made for {max_length} items, got a sequence of {length}; cut the history"
        )
    return max_length


def place_keys(key: PRNGKey, batch_size: int, num_rows: int) -> PRNGKey:
    """One key a place, ``[B, R]``, that padding on the left does not change.

    Places are counted from the end, so that a history draws the same noise in every length bucket.
    """
    fold = jax.random.fold_in
    row_keys = jax.vmap(fold, in_axes=(None, 0))(key, jnp.arange(batch_size))
    places = jnp.arange(num_rows - 1, -1, -1)
    return jax.vmap(lambda row_key: jax.vmap(fold, in_axes=(None, 0))(row_key, places))(row_keys)


def configure(template: nn.Module, **fields) -> nn.Module:
    """A copy of a provider with those of ``fields`` that it has; the rest are dropped."""
    known = type(template).__dataclass_fields__
    return template.clone(**{name: value for name, value in fields.items() if name in known})


__all__ = [
    "configure",
    "keys_to_profiles",
    "lag_of",
    "not_newer",
    "place_keys",
    "profiles_to_keys",
    "real_rows",
    "recency_initializer",
    "require_length",
]
