"""Random order without memory: permutations and draws as pure functions of a counter.

Written over 32-bit integer operations that numpy and ``jax.numpy`` share, so that the host pipeline
and the on-device one yield the same batches for the same indices.
"""

from types import ModuleType
from typing import Any

import numpy as np

ROUNDS = 24
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)


@np.errstate(over="ignore")
def mix(values: Any, xp: ModuleType = np) -> Any:
    """A bijection of 32-bit words whose output bits all depend on all input bits (two xor-multiply rounds)."""
    values = xp.asarray(values, xp.uint32)
    values = (values ^ (values >> xp.uint32(16))) * xp.uint32(_MULTIPLIERS[0])
    values = (values ^ (values >> xp.uint32(15))) * xp.uint32(_MULTIPLIERS[1])
    return values ^ (values >> xp.uint32(16))


@np.errstate(over="ignore")
def combine(seed: Any, *words: Any, xp: ModuleType = np) -> Any:
    """One 32-bit word from a seed and further words, all of them broadcast."""
    state = mix(xp.asarray(seed, xp.uint32), xp)
    for word in words:
        state = mix(state ^ mix(xp.asarray(word, xp.uint32) + xp.uint32(0x9E3779B9), xp), xp)
    return state


@np.errstate(over="ignore")
def permute(places: Any, size: int, seed: Any, xp: ModuleType = np) -> Any:
    """Where a random permutation of ``range(size)`` sends each place, without building it.

    The swap-or-not shuffle (Hoang, Morris, Rogaway 2012): in each round a place and its mirror image
    around a random point are exchanged or not, by one hashed bit of the larger of the two.

    Args:
      places: uint32 ``[n]``, each below ``size``.
      size: how many there are, below 2**31.
      seed: 32-bit word, scalar or ``[n]`` (places of different permutations in one call).
      xp: ``numpy`` or ``jax.numpy``.

    Returns:
      uint32 ``[n]``; distinct places of one seed have distinct images.
    """
    if not 0 < size < 2**31:
        raise ValueError(f"a permutation needs a size from 1 to 2**31 - 1, got {size}")
    places, total = xp.asarray(places, xp.uint32), xp.uint32(size)
    seeds, seed_of_place = _distinct(seed, xp)
    numbers = xp.arange(ROUNDS, dtype=xp.uint32).reshape(-1, *[1] * seeds.ndim)
    round_seeds = combine(seeds, numbers, xp=xp)
    pivots, salts = round_seeds % total, round_seeds * xp.uint32(0x9E3779B1) + numbers
    for pivot, salt in zip(pivots, salts, strict=True):
        if seed_of_place is not None:
            pivot, salt = pivot[seed_of_place], salt[seed_of_place]
        mirror = pivot - places
        mirror = xp.minimum(
            mirror, mirror + total
        )  # modulo total: what is below 0 has wrapped to above 2**31
        swap = _top_bit_of_mix(xp.maximum(places, mirror) ^ salt, xp)
        places = places ^ ((places ^ mirror) & (xp.uint32(0) - swap))
    return places


def _distinct(seed: Any, xp: ModuleType) -> tuple[Any, Any]:
    """The seeds to derive rounds from, and which of them each place takes (``None``: as they stand).

    Places come with few distinct seeds; numpy derives each one's rounds once.
    """
    seed = xp.asarray(seed, xp.uint32)
    if xp is not np or seed.ndim == 0:
        return seed, None
    seeds, seed_of_place = np.unique(seed, return_inverse=True)
    return (seeds[0], None) if len(seeds) == 1 else (seeds, seed_of_place)


def _top_bit_of_mix(values: Any, xp: ModuleType) -> Any:
    """The highest bit of ``mix(values)``, 0 or 1; the last shift of ``mix`` does not reach it."""
    values = (values ^ (values >> xp.uint32(16))) * xp.uint32(_MULTIPLIERS[0])
    values = (values ^ (values >> xp.uint32(15))) * xp.uint32(_MULTIPLIERS[1])
    return values >> xp.uint32(31)


__all__ = ["ROUNDS", "combine", "mix", "permute"]
